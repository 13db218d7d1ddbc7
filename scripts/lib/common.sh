# shellcheck shell=bash
# Messages, processes, ports and probes: what all scripts share. Sourced, never run.

say() { printf '%s\n' "$*"; }

# fail WHAT [WHAT TO DO…]: ends the script with one message.
fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

# show_log FILE…: the end of each log that has something to say, on stderr.
show_log() {
  local file
  for file in "$@"; do
    [[ -s $file ]] || continue
    printf -- '--- the end of %s\n' "$file" >&2
    tail -n 25 -- "$file" >&2
  done
}

random_secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# absolute PATH: the path from /, whether or not it exists.
absolute() { realpath -m -- "$1"; }

# --- processes ---------------------------------------------------------------------------------------------------

# proc_stat PID: sets proc_state and proc_started; fails when there is no such process.
proc_stat() {
  local line fields
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra fields <<<"${line##*) }"
  proc_state=${fields[0]} proc_started=${fields[19]}
}

# pid_save FILE PID: remembers a process together with its start time, since numbers are used again.
pid_save() {
  proc_stat "$2" || return 1
  printf '%s %s\n' "$2" "$proc_started" >"$1"
}

# pid_alive FILE: sets pid; fails unless the remembered process, and not a later one of its number, is alive.
pid_alive() {
  local started
  pid=
  [[ -s $1 ]] && read -r pid started <"$1" || return 1
  proc_stat "$pid" && [[ $proc_started == "$started" && $proc_state != Z ]]
}

# descendants PID: sets family to the process and all that come from it.
descendants() {
  local stat line fields next
  local -A children=()
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    read -ra fields <<<"${line##*) }"
    children[${fields[1]}]+=" ${line%% *}"
  done
  family=()
  local -a queue=("$1")
  while ((${#queue[@]})); do
    next=${queue[0]} queue=("${queue[@]:1}")
    family+=("$next")
    read -ra fields <<<"${children[$next]:-}"
    queue+=("${fields[@]}")
  done
}

# send SIGNAL PID…: a process that is already gone is not an error.
send() { kill -s "$1" -- "${@:2}" 2>/dev/null || true; }

# wait_gone SECONDS PID…: fails if one of them is still alive after that time.
wait_gone() {
  local deadline=$((SECONDS + $1)) process
  shift
  for process in "$@"; do
    while proc_stat "$process" && [[ $proc_state != Z ]]; do
      ((SECONDS <= deadline)) || return 1
      sleep 0.05
    done
  done
}

# detach PID_FILE LOG COMMAND…: runs it in a session of its own, holding nothing of ours open; sets detached to its process
# id. It writes the file itself before it becomes the command: whatever ends us, no process is started that nobody knows.
detach() {
  local pid_file=$1 log=$2 saved=''
  shift 2
  (
    pid_save "$pid_file" "$BASHPID" || exit 1
    exec </dev/null >>"$log" 2>&1
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      ((fd <= 2)) || eval "exec $fd>&-"
    done
    # A background job of a shell ignores SIGINT and SIGQUIT, and would pass that on.
    exec env --default-signal=INT,QUIT setsid -- "$@"
  ) &
  detached=$!
  disown "$detached" 2>/dev/null || true
  until [[ $saved == "$detached" ]] || ! proc_stat "$detached" || [[ $proc_state == Z ]]; do
    { read -r saved _ <"$pid_file"; } 2>/dev/null || sleep 0.01
  done
}

# trim_log FILE: at 10 MB it becomes FILE.1 and begins anew, in place, since whoever writes it has it open.
trim_log() {
  [[ -e $1 ]] && (($(stat -c %s -- "$1") >= 10485760)) || return 0
  cp -- "$1" "$1.1" && : >"$1"
}

# --- what belongs to whom ------------------------------------------------------------------------------------------

# lock FILE [SECONDS]: one at a time; held until this (sub)shell ends.
lock() {
  { exec {lock_fd}>>"$1"; } 2>/dev/null || fail_for_owner "$1"
  flock -w 3 "$lock_fd" && return
  say "waiting for another ${0##*/} to be done…" >&2
  flock -w "${2:-600}" "$lock_fd" || fail "another ${0##*/} has held $1 for too long" "see what it is doing, end it, and try again"
}

# unlocked COMMAND…: without the lock's descriptor, which what it leaves running would keep.
unlocked() (
  exec {lock_fd}>&-
  "$@"
)

# fail_for_owner PATH: we may not write there, or should not.
fail_for_owner() {
  local path=$1 owner
  [[ -e $path ]] || path=$(dirname -- "$path")
  owner=$(stat -c %u -- "$path")
  owner=$(id -nu -- "$owner" 2>/dev/null) || owner="user number $(stat -c %u -- "$path")"
  fail "$path belongs to $owner, and this is $(id -nu)" "run this as $owner, for instance: sudo -u $owner ${0@Q}" \
    "or have $owner stop what runs there and delete $path, to begin anew as $(id -nu)"
}

# ours DIR: root may write anywhere, but what it writes shuts the owner out. Some file systems give every file one owner.
ours() {
  local owner probe made
  owner=$(stat -c %u -- "$1")
  [[ $owner != "$EUID" ]] || return 0
  probe=$(mktemp "$1/.owner.XXXXXX" 2>/dev/null) || return 1
  made=$(stat -c %u -- "$probe")
  rm -f -- "$probe"
  [[ $made == "$owner" ]]
}

# claim DIR: ends the script where another user's servers live, and lets a copy of a directory forget the processes and the
# places of the original, which its files still name.
claim() {
  local dir old
  dir=$(absolute "$1")
  ours "$dir" || fail_for_owner "$dir"
  [[ $(cat -- "$dir/where" 2>/dev/null) != "$dir" ]] || return 0
  (
    lock "$dir/where.lock"
    old=$(cat -- "$dir/where" 2>/dev/null) || true
    [[ -z $old || $old == "$dir" ]] || forget "$dir" "$old"
    say "$dir" >"$dir/where"
  )
}

# forget DIR OLD: DIR was at OLD when it was last used. Where OLD is gone, it was moved, and the processes are still its own.
forget() {
  local location=$1/postgres/location
  if [[ -e $2/where ]]; then
    say "$1 is a copy of $2, whose servers go on by themselves: this one has none running yet" >&2
    rm -f -- "$1"/{*.pid,*.loop,env} "$1"/{rabbitmq*,cluster}/*.pid "$1"/postgres/{postmaster.pid,location,outside}
  else
    say "$1 was moved from $2: what runs there should be stopped and started again" >&2
    [[ $(cat -- "$location" 2>/dev/null) != "$2"/* ]] || rm -f -- "$location"
  fi
}

# --- ports -------------------------------------------------------------------------------------------------------

port_taken() {
  local hex
  printf -v hex '%04X' "$1"
  grep -Eqis ":$hex [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6 && return
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# listens PID PORT: whether it is this process that listens there. Yes where the system does not say who listens at all.
listens() {
  local hex inode found=''
  printf -v hex '%04X' "$2"
  while read -r inode; do
    found=yes
    [[ -z $(find "/proc/$1/fd" -lname "socket:\[$inode\]" -print -quit 2>/dev/null) ]] || return 0
  done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v end=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == end { print $10 }')
  [[ -z $found ]]
}

# choose_port PREFERRED [TAKEN…]: sets port to the preferred one if it is free, else to any free one not listed.
# Random ones come from below the range the kernel gives to outgoing connections.
choose_port() {
  port=$1
  shift
  while [[ -z $port || " $* " == *" $port "* ]] || port_taken "$port"; do
    port=$((20000 + RANDOM % 12000))
  done
}

# --- probes ------------------------------------------------------------------------------------------------------

# http_send PORT PATH HEADER: opens descriptor 3 with the request sent. `cat`, since printf writes each line by itself.
http_send() {
  local header=${3:+$3$'\r\n'}
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  cat <<<"GET $2 HTTP/1.0"$'\r\n'"Host: 127.0.0.1"$'\r\n'"$header"$'\r' >&3
}

# authorization USER:PASSWORD: the header; nothing for nobody.
authorization() { [[ -z $1 ]] || say "Authorization: Basic $(printf %s "$1" | base64 -w0)"; }

# http_status PORT PATH [USER:PASSWORD]: sets status to the code with which 127.0.0.1 answers; fails when it does not.
http_status() {
  status=$(
    exec 2>/dev/null
    http_send "$1" "$2" "$(authorization "${3:-}")" || exit 1
    read -r -t 5 _ code _ <&3 && printf %s "$code"
  ) || return 1
  [[ -n $status ]]
}

# http_body PORT PATH [USER:PASSWORD]: prints what 127.0.0.1 answers, without the headers.
http_body() (
  exec 2>/dev/null
  http_send "$1" "$2" "$(authorization "${3:-}")" || exit 1
  timeout 5 sed '1,/^\r*$/d' <&3
)

# amqp_answers PORT: an AMQP 0-9-1 server greets a client.
amqp_answers() (
  exec 2>/dev/null
  LC_ALL=C
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'AMQP\0\0\11\1' >&3
  read -r -t 5 -N 1 byte <&3 && [[ $byte == $'\1' ]]
)

# --- the file of addresses -----------------------------------------------------------------------------------------

# env_set FILE KEY VALUE [KEY VALUE…]: sets these in a file for `. FILE`, readable by its owner alone; an empty
# value removes its key; other keys stay.
env_set() (
  file=$1
  shift
  umask 077
  lock "$file.lock"
  declare -A values=()
  while (($#)); do
    values[$1]=$2
    shift 2
  done
  {
    [[ ! -e $file ]] || while IFS= read -r line; do
      [[ -n ${values[${line%%=*}]+set} ]] || printf '%s\n' "$line"
    done <"$file"
    for key in "${!values[@]}"; do
      [[ -z ${values[$key]} ]] || printf "%s='%s'\n" "$key" "${values[$key]}"
    done
  } | LC_ALL=C sort >"$file.new"
  mv -f -- "$file.new" "$file"
)

# --- cargo ---------------------------------------------------------------------------------------------------------

# A shell that has not read rustup's profile finds cargo all the same.
cargo_find() {
  command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null ||
    fail 'there is no cargo here' 'install Rust from https://rustup.rs, open a new terminal, and try again'
}

# python_with MODULE DIR: makes python3 one that has Python's MODULE, if the system's own has it: Debian's packages are
# seen by that one, and another may come first in PATH. DIR gets a link to it.
python_with() {
  ! python3 -c "import $1" 2>/dev/null || return 0
  /usr/bin/python3 -c "import $1" 2>/dev/null || return 0
  mkdir -p "$2"
  ln -sf /usr/bin/python3 "$2/python3"
  PATH=$2:$PATH
}

# target_directory: where cargo puts what it builds, in the workspace of the current directory.
target_directory() {
  local directory
  directory=$(cargo metadata --format-version 1 --no-deps --locked | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)
  [[ -n $directory ]] || fail 'cargo does not say where it builds' 'run: cargo metadata --no-deps'
  say "$directory"
}
