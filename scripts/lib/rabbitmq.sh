# shellcheck shell=bash disable=SC2154
# One private RabbitMQ in $DIR/rabbitmq. Sourced after common.sh; DIR is set.
#
# Debian's own /usr/sbin/rabbitmq* are not used: they insist on the system's user and directories.

readonly rabbitmq_bin=/usr/lib/rabbitmq/bin
readonly rabbitmq_dir=$DIR/rabbitmq

rabbitmq_installed() { [[ -x $rabbitmq_bin/rabbitmq-server ]] && command -v erl >/dev/null && command -v epmd >/dev/null; }

# Sets rabbitmq_environment, without anything of ours that could change how the server behaves.
rabbitmq_prepare_environment() {
  local dir=$rabbitmq_dir
  rabbitmq_environment=(
    env -i "PATH=$PATH" "HOME=$dir/home" LANG=C.UTF-8
    "ERL_EPMD_PORT=$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
    "ERL_CRASH_DUMP=$dir/log/erl_crash.dump" ERL_CRASH_DUMP_SECONDS=10
    RABBITMQ_NODENAME=platziverse@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
    "RABBITMQ_NODE_PORT=$amqp_port" "RABBITMQ_DIST_PORT=$dist_port"
    "RABBITMQ_MNESIA_BASE=$dir/data" "RABBITMQ_LOG_BASE=$dir/log" "RABBITMQ_PID_FILE=$dir/erlang.pid"
    "RABBITMQ_GENERATED_CONFIG_DIR=$dir/generated" "RABBITMQ_CONFIG_FILE=$dir/etc/rabbitmq.conf"
    "RABBITMQ_ADVANCED_CONFIG_FILE=$dir/etc/advanced.config" "RABBITMQ_CONF_ENV_FILE=$dir/etc/rabbitmq-env.conf"
    "RABBITMQ_ENABLED_PLUGINS_FILE=$dir/etc/enabled_plugins"
    # The first keeps distribution off the network; the others keep idle schedulers from spinning.
    'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none'
  )
}

# Sets the four ports: those of the last start if they are still free, else others.
rabbitmq_choose_ports() {
  local wanted_amqp=${PREFERRED_AMQP_PORT:-} wanted_management=${PREFERRED_MANAGEMENT_PORT:-} known=
  amqp_port='' management_port='' dist_port='' epmd_port=''
  if [[ -s $rabbitmq_dir/ports ]]; then
    known=yes
    read -r amqp_port management_port dist_port epmd_port <"$rabbitmq_dir/ports"
    wanted_amqp=$amqp_port wanted_management=$management_port
  fi
  choose_port "$wanted_amqp"
  amqp_port=$port
  choose_port "$wanted_management" "$amqp_port"
  management_port=$port
  choose_port "$dist_port" "$amqp_port" "$management_port"
  dist_port=$port
  choose_port "$epmd_port" "$amqp_port" "$management_port" "$dist_port"
  epmd_port=$port
  printf '%s\n' "$amqp_port $management_port $dist_port $epmd_port" >"$rabbitmq_dir/ports"
  [[ -z $known || $amqp_port$management_port == "$wanted_amqp$wanted_management" ]] ||
    say "rabbitmq: a port it had is taken now by another program; it moves to $amqp_port (AMQP) and $management_port (management)"
}

# 4 GB, or 40 % of a machine that has less than 10 GB.
rabbitmq_memory_mb() {
  local kilobytes
  kilobytes=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
  local share=$((kilobytes * 4 / 10 / 1024))
  say $((share < 4096 ? share : 4096))
}

rabbitmq_configure() {
  local etc=$rabbitmq_dir/etc
  cat >"$etc/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp_port
management.tcp.ip = 127.0.0.1
management.tcp.port = $management_port
default_user = platziverse
default_pass = $(<"$rabbitmq_dir/password")
vm_memory_high_watermark.absolute = $(rabbitmq_memory_mb)MB
raft.wal_max_size_bytes = 67108864
disk_free_limit.absolute = 200MB
log.console = false
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
CONF
  say '[rabbitmq_management].' >"$etc/enabled_plugins"
  say '[].' >"$etc/advanced.config"
  : >"$etc/rabbitmq-env.conf"
}

rabbitmq_alive() { pid_alive "$rabbitmq_dir/vm.pid"; }

rabbitmq_answers() {
  amqp_answers "$amqp_port" &&
    http_status "$management_port" /api/whoami "platziverse:$(<"$rabbitmq_dir/password")" && [[ $status == 200 ]]
}

# rabbitmq_await LAUNCHER_PID: until it answers; fails when it dies first or is too late.
rabbitmq_await() {
  local deadline=$((SECONDS + ${SERVERS_TIMEOUT:-120})) process
  while ((SECONDS < deadline)); do
    if ! rabbitmq_alive; then
      proc_stat "$1" && [[ $proc_state != Z ]] || return 1
      descendants "$1"
      for process in "${family[@]}"; do
        [[ $(cat "/proc/$process/comm" 2>/dev/null) != beam.smp ]] || pid_save "$rabbitmq_dir/vm.pid" "$process" || true
      done
    elif rabbitmq_answers; then
      return 0
    fi
    sleep 0.1
  done
  return 1
}

rabbitmq_launch() {
  rabbitmq_choose_ports
  rabbitmq_configure
  rabbitmq_prepare_environment
  detach "$rabbitmq_dir/log/epmd.log" "${rabbitmq_environment[@]}" epmd -port "$epmd_port" -address 127.0.0.1
  pid_save "$rabbitmq_dir/epmd.pid" "$detached" || true
  # More descriptors than a queue server needs make the Erlang VM reserve memory for each.
  (($(ulimit -n) == 65536)) || ulimit -Sn 65536 2>/dev/null || ulimit -Sn hard
  cd "$rabbitmq_dir" || return 1
  detach "$rabbitmq_dir/log/console.log" "${rabbitmq_environment[@]}" "$rabbitmq_bin/rabbitmq-server"
  rabbitmq_await "$detached"
}

rabbitmq_start() {
  rabbitmq_installed || fail 'RabbitMQ is not installed' 'run: scripts/servers install'
  local attempt
  if rabbitmq_alive; then
    read -r amqp_port management_port dist_port epmd_port <"$rabbitmq_dir/ports"
    send CONT "$pid"
    rabbitmq_await "$pid" || rabbitmq_fail 'RabbitMQ runs but does not answer'
  else
    (umask 077 && mkdir -p "$rabbitmq_dir"/{home,data,log,generated,etc})
    umask 077
    [[ -s $rabbitmq_dir/password ]] || random_secret >"$rabbitmq_dir/password"
    for attempt in 1 2 3; do
      : >"$rabbitmq_dir/log/console.log"
      ! rabbitmq_launch || break
      rabbitmq_kill
      if ((attempt == 3)) || ! rabbitmq_lost_port; then
        rabbitmq_fail 'RabbitMQ did not start'
      fi
    done
  fi
  env_set "$DIR/env" \
    AMQP_URL "amqp://platziverse:$(<"$rabbitmq_dir/password")@127.0.0.1:$amqp_port/%2f" \
    MANAGEMENT_URL "http://platziverse:$(<"$rabbitmq_dir/password")@127.0.0.1:$management_port"
}

# Another program took a port between our look and RabbitMQ's.
rabbitmq_lost_port() {
  tail -qn 60 "$rabbitmq_dir"/log/{console.log,platziverse@localhost.log} 2>/dev/null |
    grep -qE 'eaddrinuse|already in use|port .* is not available'
}

rabbitmq_fail() {
  show_log "$rabbitmq_dir/log/platziverse@localhost.log" "$rabbitmq_dir/log/console.log"
  fail "$1 (deadline ${SERVERS_TIMEOUT:-120} s)" "all its logs: $rabbitmq_dir/log"
}

rabbitmq_stop() {
  if rabbitmq_alive; then
    send CONT "$pid"
    send TERM "$pid"
    wait_gone 60 "$pid" || rabbitmq_kill
  fi
  rabbitmq_stop_epmd
}

rabbitmq_kill() {
  if rabbitmq_alive; then
    descendants "$pid"
    send KILL "${family[@]}"
    wait_gone 10 "${family[@]}" || fail "RabbitMQ, process $pid, does not end even with SIGKILL"
  fi
  rabbitmq_stop_epmd
}

rabbitmq_stop_epmd() {
  ! pid_alive "$rabbitmq_dir/epmd.pid" || {
    send KILL "$pid"
    wait_gone 5 "$pid" || true
  }
}

# Only the Erlang VM: the shell script above it takes SIGCONT for an order to stop.
rabbitmq_pause() { rabbitmq_alive && send STOP "$pid"; }
rabbitmq_resume() { rabbitmq_alive && send CONT "$pid"; }

rabbitmq_describe() {
  local amqp management rest
  # shellcheck disable=SC2034
  read -r amqp management rest <"$rabbitmq_dir/ports"
  say "AMQP 127.0.0.1:$amqp, management http://127.0.0.1:$management"
}

rabbitmq_delete() {
  rm -rf -- "$rabbitmq_dir"
  env_set "$DIR/env" AMQP_URL '' MANAGEMENT_URL ''
}

# rabbitmq_ctl ARGUMENT…: rabbitmqctl of this server.
rabbitmq_ctl() {
  [[ -s $rabbitmq_dir/ports ]] || fail "there is no RabbitMQ in $DIR" "run: scripts/servers start rabbitmq $DIR"
  read -r amqp_port management_port dist_port epmd_port <"$rabbitmq_dir/ports"
  rabbitmq_prepare_environment
  cd "$rabbitmq_dir" || return 1
  exec "${rabbitmq_environment[@]}" "$rabbitmq_bin/rabbitmqctl" "$@"
}
