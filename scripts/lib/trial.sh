# shellcheck shell=bash
# A run in a directory of its own under .run/, with servers that end with it. Needs common.sh, and $here and $root.
# shellcheck disable=SC2154

dir=

# remove DIR: the servers in it, those that tests made included, and what scripts/up started in it. What cannot be stopped
# keeps its directory: without that nobody would find it again.
remove() {
  local server left=0
  while IFS= read -r server; do
    if [[ -e $server/up.lock ]]; then
      UP_DIR=$server "$here/down" --purge --yes </dev/null >/dev/null || left=1
    else
      "$here/servers" delete all "$server" </dev/null >/dev/null || left=1
    fi
  done < <(find "$1" \( -name 'rabbitmq*' -o -name postgres \) -type d -prune -o -name '*.lock' -printf '%h\n' | sort -u)
  if ((left)); then
    say "Not removed, since something in it could not be stopped (see above): $1" >&2
    return 1
  fi
  rm -rf -- "$1"
}

# sweep KIND: the directories of runs that were killed, and what these left running. Fails if something stays.
sweep() {
  local old left=0
  for old in "$root/.run/$1".*/; do
    [[ -d $old ]] || continue
    ! pid_alive "${old}owner" || continue
    say "Removing what an interrupted run left: ${old#"$root"/}"
    ! pid_alive "${old}child" || send KILL "-$pid"
    remove "${old%/}" || left=1
  done
  return "$left"
}

# sweep_all: those of every kind; says which runs are left alone.
sweep_all() {
  local kind old left=0
  for kind in test chaos smoke bench; do
    (
      lock "$root/.run/$kind.lock"
      sweep "$kind"
    ) || left=1
    for old in "$root/.run/$kind".*/; do
      ! pid_alive "${old}owner" || say "Left alone, since it runs (process $pid): ${old#"$root"/}"
    done
  done
  return "$left"
}

make_directory() (
  mkdir -p "$root/.run"
  claim "$root/.run"
  lock "$root/.run/$1.lock"
  sweep "$1" || true
  mkdir -p "$dir/own"
  pid_save "$dir/owner" $$
)

# trial_directory KIND: a directory $dir for this run, and the end of everything in it at the end.
trial_directory() {
  dir=$root/.run/$1.$$
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  make_directory "$1"
}

# trial_begin KIND: the same, with what servers need.
trial_begin() {
  trial_directory "$1"
  "$here/servers" install
}

# What a run that failed shows before its directory goes; for the run to say.
trial_failed() { :; }

child=
# A process group of its own: a signal reaches the command and all that it started, whether it came from a terminal or
# from a program.
trial_run() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  pid_save "$dir/child" "$child" || true
  wait "$child" && code=0 || code=$?
  child=
  return "$code"
}

finish() {
  local code=$?
  trap '' INT TERM HUP
  if [[ -n $child ]]; then
    send TERM "-$child"
    wait "$child" 2>/dev/null || true
    send KILL "-$child"
  fi
  ((code == 0)) || trial_failed
  [[ ! -d $dir ]] || remove "$dir" || ((code)) || code=1
  exit "$code"
}
