# shellcheck shell=bash disable=SC2154
# One private PostgreSQL in $DIR/postgres. Sourced after common.sh; DIR is set.
#
# PostgreSQL refuses to run as root: then it runs as the user `postgres`, which must be able to reach its data.

readonly postgres_dir=$DIR/postgres
postgres_user=()
((EUID != 0)) || postgres_user=(setpriv --reuid=postgres --regid=postgres --init-groups --reset-env --)

# Sets postgres_bin: that of the data if there is some, else of the newest version installed.
postgres_find() {
  local bin version=
  postgres_bin=
  [[ ! -s ${postgres_data:-}/PG_VERSION ]] || version=$(<"$postgres_data/PG_VERSION")
  while IFS= read -r bin; do
    [[ ! -x $bin/initdb || ! -x $bin/postgres ]] || [[ -n $version && $bin != */"$version"/bin ]] || postgres_bin=$bin
  done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
  [[ -n $postgres_bin ]]
}

postgres_installed() { postgres_data='' postgres_find; }

# Sets postgres_data: beside the rest, or where the last start had to put it.
postgres_locate() {
  postgres_data=$postgres_dir/data
  [[ ! -s $postgres_dir/location ]] || postgres_data=$(<"$postgres_dir/location")
}

# Where the user `postgres` cannot follow (a checkout in /root), the data go to a directory of its own, and a note stays here.
postgres_make_room() {
  mkdir -p "$postgres_dir" || return 1
  postgres_locate
  [[ ! -e $postgres_data && $EUID == 0 ]] || return 0
  id postgres >/dev/null 2>&1 ||
    fail 'there is no user postgres, as whom PostgreSQL runs when this is called by root' 'run: scripts/servers install'
  local home=$postgres_dir/home
  mkdir -p "$home" || return 1
  chown postgres: "$home" || return 1
  chmod 755 "$postgres_dir" || return 1
  if ! (cd / && "${postgres_user[@]}" test -w "$home" -a -x "$home"); then
    mkdir -p /var/lib/platziverse || return 1
    home=$(mktemp -d /var/lib/platziverse/postgres.XXXXXX) || return 1
    chown postgres: "$home" || return 1
    say "$home" >"$postgres_dir/outside" || return 1
  fi
  postgres_data=$home/data
  say "$postgres_data" >"$postgres_dir/location"
}

# A file system in memory for the data, of the size of POSTGRES_TMPFS. The rest stays on the disk: a start needs room too.
postgres_mount() {
  local home options=size=${POSTGRES_TMPFS:-},mode=700,uid=postgres,gid=postgres,nosuid,nodev
  [[ -n ${POSTGRES_TMPFS:-} ]] || return 0
  [[ $POSTGRES_TMPFS =~ ^[1-9][0-9]*[kmg]?$ ]] || fail "POSTGRES_TMPFS is no size: $POSTGRES_TMPFS" 'a size is like 120m or 1g'
  ((EUID == 0)) || fail 'POSTGRES_TMPFS needs root, since only root may mount a file system' 'run this as root, or without POSTGRES_TMPFS'
  home=$(dirname -- "$postgres_data")
  if mountpoint -q -- "$home"; then
    options=remount,size=$POSTGRES_TMPFS
  elif [[ -e $postgres_data ]]; then
    fail "the data in $DIR are on the disk already" "to have them in memory: scripts/servers delete postgres $DIR, and start again"
  fi
  mount -t tmpfs -o "$options" platziverse "$home" || fail "no file system in memory can be mounted at $home" "mount's message is above"
}

postgres_unmount() {
  ! mountpoint -q -- "$1" || umount -- "$1" || fail "$1 cannot be unmounted" "see who uses it: fuser -vm $1"
}

# The database is made under another name first, so that one whose making was interrupted is never taken for a whole one.
postgres_create() {
  local making=$postgres_data.making log=$postgres_dir/log password
  password=$(<"$postgres_dir/password")
  rm -rf -- "$making" || return 1
  "${postgres_user[@]}" "$postgres_bin/initdb" --pgdata="$making" --username=postgres --auth=trust --no-sync \
    --encoding=UTF8 --locale=C.UTF-8 </dev/null >>"$log" 2>&1 || return 1
  cat >"$making/pg_hba.conf" <<'CONF' || return 1
host all all 127.0.0.1/32 scram-sha-256
CONF
  cat >>"$making/postgresql.conf" <<'CONF' || return 1

listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
fsync = on
synchronous_commit = on
shared_buffers = 256MB
max_wal_size = 2GB
log_checkpoints = off
CONF
  # On a small disk the tables should fill it, not the log of changes: without room for that PostgreSQL ends.
  [[ -z ${POSTGRES_TMPFS:-} ]] || say 'max_wal_size = 48MB' >>"$making/postgresql.conf" || return 1
  [[ -z ${POSTGRES_COMMIT_TIMES:-} ]] || say 'track_commit_timestamp = on' >>"$making/postgresql.conf" || return 1
  printf '%s\n' "CREATE ROLE platziverse LOGIN CREATEDB PASSWORD '$password';" \
    'CREATE DATABASE platziverse OWNER platziverse;' |
    "${postgres_user[@]}" "$postgres_bin/postgres" --single -D "$making" postgres >>"$log" 2>&1 || return 1
  mv -- "$making" "$postgres_data"
}

postgres_choose_port() {
  local wanted=${PREFERRED_POSTGRES_PORT:-} known=
  [[ ! -s $postgres_dir/port ]] || known=$(<"$postgres_dir/port") wanted=$(<"$postgres_dir/port")
  choose_port "$wanted"
  postgres_port=$port
  say "$postgres_port" >"$postgres_dir/port" || return 1
  [[ -z $known || $known == "$postgres_port" ]] ||
    say "postgres: port $known, which it had, is taken now by another program; it moves to $postgres_port"
}

postgres_alive() { pid_alive "$postgres_dir/postmaster.pid"; }

postgres_answers() {
  PGPASSWORD=$(<"$postgres_dir/password") PGCONNECT_TIMEOUT=5 timeout 10 "$postgres_bin/psql" --no-psqlrc --quiet \
    --host=127.0.0.1 --port="$postgres_port" --username=platziverse --dbname=platziverse --command='SELECT 1' \
    </dev/null >/dev/null 2>"$postgres_dir/probe.log"
}

postgres_await() {
  local deadline=$((SECONDS + ${SERVERS_TIMEOUT:-120}))
  while ((SECONDS < deadline)) && postgres_alive; do
    ! postgres_answers || return 0
    sleep 0.1
  done
  return 1
}

# After SIGKILL the lock file names a process number that may be another program's by now.
postgres_forget_lock() {
  local old
  [[ -s $postgres_data/postmaster.pid ]] || return 0
  read -r old <"$postgres_data/postmaster.pid"
  [[ $(readlink "/proc/$old/cwd") == "$postgres_data" ]] || rm -f -- "$postgres_data/postmaster.pid"
}

postgres_launch() {
  postgres_choose_port || return 1
  postgres_forget_lock
  detach "$postgres_dir/postmaster.pid" "$postgres_dir/log" \
    "${postgres_user[@]}" "$postgres_bin/postgres" -D "$postgres_data" -p "$postgres_port"
  postgres_await
}

postgres_start() {
  local attempt
  cd /
  postgres_locate
  if ! postgres_find; then
    [[ ! -s $postgres_data/PG_VERSION ]] ||
      fail "the data in $DIR are of PostgreSQL $(<"$postgres_data/PG_VERSION"), which is not installed" \
        "install that version, or delete the data: scripts/servers delete postgres $DIR"
    fail 'PostgreSQL is not installed' 'run: scripts/servers install'
  fi
  if postgres_alive; then
    postgres_port=$(<"$postgres_dir/port")
    postgres_signal CONT
    postgres_mount
    postgres_await || postgres_fail 'PostgreSQL runs but does not answer'
  else
    postgres_make_room || fail "$postgres_dir cannot be made" 'its message is above'
    postgres_mount
    umask 077
    [[ -s $postgres_dir/password ]] || random_secret >"$postgres_dir/password"
    [[ -e $postgres_data ]] || postgres_create || postgres_fail 'PostgreSQL could not make its data directory'
    for attempt in 1 2 3; do
      : >"$postgres_dir/log"
      ! postgres_launch || break
      postgres_kill
      if ((attempt == 3)) || ! grep -q 'already in use' "$postgres_dir/log"; then
        postgres_fail 'PostgreSQL did not start'
      fi
    done
  fi
  env_set "$DIR/env" \
    DATABASE_URL "postgres://platziverse:$(<"$postgres_dir/password")@127.0.0.1:$postgres_port/platziverse"
}

postgres_fail() {
  show_log "$postgres_dir/log" "$postgres_dir/probe.log"
  fail "$1 (deadline ${SERVERS_TIMEOUT:-120} s)" "its data: $postgres_data"
}

# postgres_signal SIGNAL: to the postmaster first, so that it makes no more processes, and then to the others.
postgres_signal() {
  descendants "$pid"
  send "$1" "${family[@]}"
}

postgres_stop() {
  postgres_alive || return 0
  postgres_signal CONT
  # SIGINT is PostgreSQL's "fast": it ends its clients' connections and writes a checkpoint.
  send INT "$pid"
  wait_gone 60 "$pid" || postgres_kill
}

# Killed, it would leave its shared memory to the system for good. SIGQUIT is its "immediate".
postgres_quit() {
  postgres_alive || return 0
  postgres_signal CONT
  send QUIT "$pid"
  wait_gone 10 "$pid" || postgres_kill
}

postgres_kill() {
  postgres_alive || return 0
  postgres_signal STOP
  postgres_signal KILL
  wait_gone 10 "${family[@]}" || fail "PostgreSQL, process $pid, does not end even with SIGKILL"
}

postgres_pause() { postgres_alive && postgres_signal STOP; }
postgres_resume() { postgres_alive && postgres_signal CONT; }

postgres_describe() { say "127.0.0.1:$(<"$postgres_dir/port")"; }

postgres_delete() {
  local outside=
  postgres_locate
  postgres_unmount "$(dirname -- "$postgres_data")"
  [[ ! -s $postgres_dir/outside ]] || outside=$(<"$postgres_dir/outside")
  [[ $outside != /var/lib/platziverse/postgres.?????? ]] || rm -rf -- "$outside"
  rm -rf -- "$postgres_dir"
  env_set "$DIR/env" DATABASE_URL ''
}
