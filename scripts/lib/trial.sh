# shellcheck shell=bash
# A run in a directory of its own under .run/, with servers that end with it. Needs common.sh, and $here and $root.
# shellcheck disable=SC2154

dir=

# remove DIR: the servers in it, those that tests made included.
remove() {
  local server
  while IFS= read -r server; do
    "$here/servers" delete all "$server" >/dev/null || true
  done < <(find "$1" \( -name 'rabbitmq*' -o -name postgres \) -type d -prune -o -name '*.lock' -printf '%h\n' | sort -u)
  rm -rf -- "$1"
}

# sweep KIND: the directories of runs that were killed.
sweep() {
  local old
  for old in "$root/.run/$1".*/; do
    [[ -d $old ]] || continue
    ! pid_alive "${old}owner" || continue
    say "Removing what an interrupted run left: ${old#"$root"/}"
    remove "${old%/}"
  done
}

make_directory() (
  mkdir -p "$root/.run"
  claim "$root/.run"
  lock "$root/.run/$1.lock"
  sweep "$1"
  mkdir -p "$dir/own"
  pid_save "$dir/owner" $$
)

# trial_begin KIND: a directory $dir for this run, and the end of everything in it at the end.
trial_begin() {
  dir=$root/.run/$1.$$
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  make_directory "$1"
  "$here/servers" install
}

child=
# A process group of its own: a signal reaches the command and all that it started, whether it came from a terminal or
# from a program.
trial_run() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
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
  [[ ! -d $dir ]] || remove "$dir"
  exit "$code"
}
