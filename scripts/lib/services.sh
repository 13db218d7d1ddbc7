# shellcheck shell=bash disable=SC2154,SC2034
# Platziverse's own services, each under a supervisor. Sourced after common.sh; RUN is the run directory.

readonly services=(gateway worker-1 worker-2 mom aggregator)
readonly drain_seconds=15

# Where everything is, as it is told to people who are in the checkout.
shown() { say "${RUN#"$root"/}"; }

# run_default: RUN is the checkout's own directory, which others than scripts/up use too.
run_default() { [[ $RUN == "$(absolute "$root/.run")" ]]; }

# run_ours: RUN is scripts/up's, which makes up.lock there before anything else and never deletes it.
run_ours() { run_default || [[ -e $RUN/up.lock ]]; }

# run_vacant: nothing is in RUN that could be somebody's.
run_vacant() { [[ ! -e $RUN ]] || [[ -d $RUN && -z $(ls -A -- "$RUN") ]]; }

# run_forget: deletes what scripts/up made in RUN, by name: whatever else is there is not ours. Servers delete their own.
run_forget() {
  local name
  for name in "${services[@]}"; do
    rm -f -- "$RUN/$name".{pid,loop,exits} "$RUN/log/$name.log"{,.1}
  done
  rm -f -- "$RUN"/{ports,env,env.new,where,aggregator.secret}
  [[ ! -d $RUN/log ]] || rmdir --ignore-fail-on-non-empty -- "$RUN/log"
}

service_program() { say "platziverse-${1%-[0-9]}"; }

# service_listeners NAME: where it listens, beside its health: a line each with the port's name, the one it is to have, and
# the setting.
service_listeners() {
  case $1 in
    gateway) say 'mqtt 1883 PLATZIVERSE_GATEWAY__LISTEN' ;;
    mom)
      say 'mom.http 8080 PLATZIVERSE_MOM__LISTEN'
      say 'mom.grpc 50052 PLATZIVERSE_MOM__GRPC_LISTEN'
      say 'mom.older 50051 PLATZIVERSE_MOM__OLDER_GRPC_LISTEN'
      ;;
    aggregator) say 'aggregator.ws 8081 PLATZIVERSE_AGGREGATOR__LISTEN' ;;
  esac
}

service_alive() { pid_alive "$RUN/$1.loop"; }

# service_port NAME: sets port to the one remembered under that name.
service_port() {
  port=$(sed -n "s/^$1=//p" "$RUN/ports" 2>/dev/null) && [[ -n $port ]]
}

# service_claim_port NAME PREFERRED: sets port to the remembered or preferred one if it is free, else to another.
service_claim_port() {
  local wanted
  service_port "$1" || port=$2
  wanted=$port
  choose_port "$wanted"
  [[ $port == "$wanted" ]] || say "Port $wanted ($1) is taken by another program: using $port instead"
  touch "$RUN/ports"
  sed -i "/^$1=/d" "$RUN/ports"
  say "$1=$port" >>"$RUN/ports"
}

# service_ready NAME: what answers could be another program's, which has taken the port meanwhile.
service_ready() {
  service_alive "$1" && service_port "$1.ops" && http_status "$port" /readyz && [[ $status == 200 ]] &&
    pid_alive "$RUN/$1.pid" && listens "$pid" "$port"
}

# service_displaced NAME: another program listens where it should.
service_displaced() {
  local listener
  while read -r listener _; do
    if service_port "$listener" && port_taken "$port"; then
      { pid_alive "$RUN/$1.pid" && listens "$pid" "$port"; } || return 0
    fi
  done < <(say "$1.ops" && service_listeners "$1")
  return 1
}

# with_settings COMMAND…: with the addresses of our servers and without settings of the caller's shell for others, or for
# other places to listen at. A setting may be spelled in small letters, and its …_FILE contradicts it. They go through the
# environment alone: an argument, even one of `env`, could be read by every user.
with_settings() (
  while IFS= read -r name; do
    case $name in DB_HOST | DB_NAME | DB_USER | DB_PASS | DB_PASS_FILE | RABBITMQ_HOSTNAME) unset "$name" ;; esac
    [[ $name == PLATZIVERSE_* ]] || continue
    case ${name^^} in
      PLATZIVERSE_AMQP__* | PLATZIVERSE_DATABASE__* | PLATZIVERSE_*__*LISTEN | PLATZIVERSE_*__*LISTEN_FILE) unset "$name" ;;
      PLATZIVERSE_AGGREGATOR__SESSION_SECRET | PLATZIVERSE_AGGREGATOR__SESSION_SECRET_FILE) unset "$name" ;;
    esac
  done < <(compgen -e)
  export PLATZIVERSE_AMQP__URL=$AMQP_URL PLATZIVERSE_DATABASE__URL=$DATABASE_URL
  "$@"
)

# session_secret: exports what resume tokens are signed with; kept, so that sessions go on when the aggregator is started again.
session_secret() {
  export PLATZIVERSE_AGGREGATOR__SESSION_SECRET_FILE=$RUN/aggregator.secret
  [[ -s $RUN/aggregator.secret ]] || (umask 077 && random_secret >"$RUN/aggregator.secret")
}

# service_start NAME PROGRAMS: where PROGRAMS is the directory with what cargo has built.
service_start() {
  local log=$RUN/log/$1.log
  rm -f -- "$RUN/$1.pid"
  say 0 >"$RUN/$1.exits"
  service_claim_port "$1.ops" "$(service_preferred_ops_port "$1")"
  local listener preferred
  while read -r listener preferred _; do
    service_claim_port "$listener" "$preferred"
  done < <(service_listeners "$1")
  with_settings service_launch "$1" "$2/$(service_program "$1")" "$log" ||
    fail "$1 could not be started" "its log: $log"
}

# service_launch NAME PROGRAM LOG: in an environment that ends with it.
service_launch() {
  service_port "$1.ops" || return 1
  export PLATZIVERSE_OPS__LISTEN=127.0.0.1:$port
  [[ $1 != aggregator ]] || session_secret || return 1
  local listener setting
  while read -r listener _ setting; do
    service_port "$listener" || return 1
    export "$setting=127.0.0.1:$port"
  done < <(service_listeners "$1")
  detach "$RUN/$1.loop" "$3" "$here/lib/supervise" "$RUN" "$1" "$2"
}

service_preferred_ops_port() {
  case $1 in
    gateway) say 9101 ;;
    worker-1) say 9102 ;;
    worker-2) say 9103 ;;
    mom) say 9104 ;;
    aggregator) say 9105 ;;
  esac
}

service_exits() { cat "$RUN/$1.exits" 2>/dev/null || say 0; }

# service_await NAME PROGRAMS: until it says that it is ready. A port can be taken by another program between our look at it
# and the service's start; then the service gets another one.
service_await() {
  local exits moves=0
  exits=$(service_exits "$1")
  local deadline=$((SECONDS + ${UP_TIMEOUT:-60})) what="was not ready after ${UP_TIMEOUT:-60} s"
  while ((SECONDS < deadline)); do
    ! service_ready "$1" || return 0
    if ((moves < 5)) && service_displaced "$1"; then
      moves=$((moves + 1)) exits=0
      service_stop "$1"
      service_start "$1" "$2"
      continue
    fi
    if ! service_alive "$1" || (($(service_exits "$1") >= exits + 3)); then
      what='ends as soon as it is started'
      break
    fi
    sleep 0.2
  done
  ! service_port "$1.ops" || http_body "$port" /readyz >&2 || true
  service_stop "$1"
  show_log "$RUN/log/$1.log"
  fail "$1 $what; it is stopped" "what it says is above; all of it is in $(shown)/log/$1.log" \
    'when that is mended, run scripts/up again: it starts only what does not run'
}

# service_stop NAME…: told is the supervisor, which passes it on: a second signal would cut short what the service finishes.
# The service itself is told only when its supervisor is gone.
service_stop() {
  local name told=() waiting=()
  for name in "$@"; do
    if pid_alive "$RUN/$name.loop"; then
      told+=("$pid") waiting+=("$pid")
      ! pid_alive "$RUN/$name.pid" || waiting+=("$pid")
    elif pid_alive "$RUN/$name.pid"; then
      told+=("$pid") waiting+=("$pid")
    fi
  done
  ((${#waiting[@]})) || return 0
  send CONT "${waiting[@]}"
  send TERM "${told[@]}"
  wait_gone "$drain_seconds" "${waiting[@]}" || {
    say "still running after $drain_seconds s, killed: $*"
    send KILL "${waiting[@]}"
    wait_gone 5 "${waiting[@]}" || fail "these processes do not end: ${waiting[*]}"
  }
}
