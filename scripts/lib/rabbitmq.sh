# shellcheck shell=bash disable=SC2154
# Private RabbitMQ nodes: one alone in $DIR/rabbitmq, or a cluster of three in $DIR/rabbitmq-1 to -3 with what they share in
# $DIR/cluster. Sourced after common.sh; DIR is set, and rabbitmq_select says which node the functions are about.
#
# Debian's own /usr/sbin/rabbitmq* are not used: they insist on the system's user and directories.

readonly rabbitmq_bin=/usr/lib/rabbitmq/bin
readonly rabbitmq_nodes=(rabbitmq-1 rabbitmq-2 rabbitmq-3)

rabbitmq_installed() { [[ -x $rabbitmq_bin/rabbitmq-server ]] && command -v erl >/dev/null && command -v epmd >/dev/null; }

# rabbitmq_select NAME: rabbitmq, or a node of the cluster. rabbitmq_shared has the password, the Erlang cookie and epmd.
rabbitmq_select() {
  local name
  rabbitmq_name=$1 rabbitmq_dir=$DIR/$1 rabbitmq_peers=()
  if [[ $1 == rabbitmq ]]; then
    rabbitmq_shared=$rabbitmq_dir rabbitmq_node=platziverse@localhost
    return
  fi
  rabbitmq_shared=$DIR/cluster rabbitmq_node=$(rabbitmq_node_of "$1")
  for name in "${rabbitmq_nodes[@]}"; do
    [[ $name == "$1" ]] || rabbitmq_peers+=("$name")
  done
}

rabbitmq_node_of() { say "platziverse-${1#rabbitmq-}@localhost"; }

# Sets rabbitmq_environment, without anything of ours that could change how the server behaves.
rabbitmq_prepare_environment() {
  local dir=$rabbitmq_dir
  # The first keeps distribution off the network; the next keep idle schedulers from spinning; the last ignores SIGINT.
  local arguments='-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none +B i'
  # A node that stops answering is given up by its peers after 10 s, not 60.
  ((${#rabbitmq_peers[@]} == 0)) || arguments+=' -kernel net_ticktime 10'
  rabbitmq_environment=(
    env -i "PATH=$PATH" "HOME=$rabbitmq_shared/home" LANG=C.UTF-8
    "ERL_EPMD_PORT=$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
    "ERL_CRASH_DUMP=$dir/log/erl_crash.dump" ERL_CRASH_DUMP_SECONDS=10
    "RABBITMQ_NODENAME=$rabbitmq_node" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
    "RABBITMQ_NODE_PORT=$amqp_port" "RABBITMQ_DIST_PORT=$dist_port"
    "RABBITMQ_MNESIA_BASE=$dir/data" "RABBITMQ_LOG_BASE=$dir/log" "RABBITMQ_PID_FILE=$dir/erlang.pid"
    "RABBITMQ_GENERATED_CONFIG_DIR=$dir/generated" "RABBITMQ_CONFIG_FILE=$dir/etc/rabbitmq.conf"
    "RABBITMQ_ADVANCED_CONFIG_FILE=$dir/etc/advanced.config" "RABBITMQ_CONF_ENV_FILE=$dir/etc/rabbitmq-env.conf"
    "RABBITMQ_ENABLED_PLUGINS_FILE=$dir/etc/enabled_plugins"
    # The script becomes the Erlang VM: one process, whose number is known from the start and that gets our signals itself.
    RUNNING_UNDER_SYSTEMD=true
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=$arguments"
  )
}

# Sets the four ports to those of the last start; fails when there was none.
rabbitmq_read_ports() {
  amqp_port='' management_port='' dist_port='' epmd_port=''
  [[ -s $rabbitmq_dir/ports ]] && read -r amqp_port management_port dist_port epmd_port <"$rabbitmq_dir/ports"
}

# Sets the four ports: those of the last start if they are still free, else others. Peers' are theirs, running or not.
rabbitmq_choose_ports() {
  local wanted_amqp=${PREFERRED_AMQP_PORT:-} wanted_management=${PREFERRED_MANAGEMENT_PORT:-} known='' peer others=()
  if rabbitmq_read_ports; then
    known=yes wanted_amqp=$amqp_port wanted_management=$management_port
  elif [[ $rabbitmq_name == rabbitmq-[23] ]]; then
    wanted_amqp='' wanted_management=''
  fi
  for peer in "${rabbitmq_peers[@]}"; do
    [[ ! -s $DIR/$peer/ports ]] || read -ra others <<<"${others[*]} $(<"$DIR/$peer/ports")"
  done
  choose_port "$wanted_amqp" "${others[@]}"
  amqp_port=$port
  choose_port "$wanted_management" "$amqp_port" "${others[@]}"
  management_port=$port
  choose_port "$dist_port" "$amqp_port" "$management_port" "${others[@]}"
  dist_port=$port
  if pid_alive "$rabbitmq_shared/epmd.pid" && [[ -s $rabbitmq_shared/epmd.port ]]; then
    epmd_port=$(<"$rabbitmq_shared/epmd.port")
  else
    choose_port "$epmd_port" "$amqp_port" "$management_port" "$dist_port" "${others[@]}"
    epmd_port=$port
  fi
  printf '%s\n' "$amqp_port $management_port $dist_port $epmd_port" >"$rabbitmq_dir/ports" || return 1
  [[ -z $known || $amqp_port$management_port == "$wanted_amqp$wanted_management" ]] ||
    say "$rabbitmq_name: a port it had is taken now by another program; it moves to $amqp_port (AMQP) and $management_port (management)"
}

# 4 GB, or 40 % of a machine that has less than 10 GB; nodes of a cluster share it.
rabbitmq_memory_mb() {
  local kilobytes
  kilobytes=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
  local share=$((kilobytes * 4 / 10 / 1024))
  say $(((share < 4096 ? share : 4096) / (${#rabbitmq_peers[@]} + 1)))
}

# What a node of the cluster needs besides. The first starts as a cluster of one, and the others find it there.
#
# pause_minority: a node that is cut off from the other two stops serving until it is back. Its clients notice and go
# elsewhere, and there are never two clusters that differ. (autoheal lets both sides go on, and then throws away what
# one of them did: exchanges, bindings, users.)
rabbitmq_cluster_settings() {
  ((${#rabbitmq_peers[@]})) || return 0
  cat <<CONF
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = $(rabbitmq_node_of rabbitmq-1)
cluster_partition_handling = pause_minority
CONF
}

# RabbitMQ's own plugins for MQTT, and for STOMP over WebSockets, for comparison.
rabbitmq_plugin_settings() {
  [[ -z ${RABBITMQ_MQTT_PORT:-} ]] || cat <<CONF
mqtt.listeners.tcp.1 = 127.0.0.1:$RABBITMQ_MQTT_PORT
mqtt.allow_anonymous = false
CONF
  [[ -z ${RABBITMQ_WEB_STOMP_PORT:-} ]] || cat <<CONF
stomp.listeners.tcp = none
web_stomp.tcp.ip = 127.0.0.1
web_stomp.tcp.port = $RABBITMQ_WEB_STOMP_PORT
CONF
}

rabbitmq_configure() {
  local etc=$rabbitmq_dir/etc
  {
    cat <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp_port
management.tcp.ip = 127.0.0.1
management.tcp.port = $management_port
default_user = platziverse
default_pass = $(<"$rabbitmq_shared/password")
vm_memory_high_watermark.absolute = $(rabbitmq_memory_mb)MB
raft.wal_max_size_bytes = 67108864
disk_free_limit.absolute = 200MB
log.console = false
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
CONF
    rabbitmq_cluster_settings
    rabbitmq_plugin_settings
  } >"$etc/rabbitmq.conf" || return 1
  local plugins=rabbitmq_management${RABBITMQ_MQTT_PORT:+,rabbitmq_mqtt}${RABBITMQ_WEB_STOMP_PORT:+,rabbitmq_web_stomp}
  say "[$plugins]." >"$etc/enabled_plugins" || return 1
  say '[].' >"$etc/advanced.config" || return 1
  : >"$etc/rabbitmq-env.conf"
}

rabbitmq_alive() { pid_alive "$rabbitmq_dir/vm.pid"; }

rabbitmq_answers() {
  amqp_answers "$amqp_port" &&
    http_status "$management_port" /api/whoami "platziverse:$(<"$rabbitmq_shared/password")" && [[ $status == 200 ]]
}

# Until it answers; fails when it ends first or is too late.
rabbitmq_await() {
  local deadline=$((SECONDS + ${SERVERS_TIMEOUT:-120}))
  while ((SECONDS < deadline)) && rabbitmq_alive; do
    ! rabbitmq_answers || return 0
    sleep 0.1
  done
  return 1
}

# The Erlang port mapper, one for all nodes that know each other.
rabbitmq_ensure_epmd() {
  ! pid_alive "$rabbitmq_shared/epmd.pid" || return 0
  say "$epmd_port" >"$rabbitmq_shared/epmd.port" || return 1
  detach "$rabbitmq_shared/epmd.pid" "$rabbitmq_shared/epmd.log" "${rabbitmq_environment[@]}" \
    epmd -port "$epmd_port" -address 127.0.0.1
}

# With a lock, since nodes that start together choose ports and need an epmd together.
rabbitmq_launch() (
  lock "$DIR/epmd.lock"
  rabbitmq_choose_ports || return 1
  rabbitmq_configure || return 1
  rabbitmq_prepare_environment
  rabbitmq_ensure_epmd || return 1
  # More descriptors than a queue server needs make the Erlang VM reserve memory for each.
  (($(ulimit -n) == 65536)) || ulimit -Sn 65536 2>/dev/null || ulimit -Sn hard || return 1
  cd "$rabbitmq_dir" || return 1
  : >"$rabbitmq_dir/log/console.log" || return 1
  detach "$rabbitmq_dir/vm.pid" "$rabbitmq_dir/log/console.log" "${rabbitmq_environment[@]}" "$rabbitmq_bin/rabbitmq-server"
)

rabbitmq_make_room() {
  (umask 077 && mkdir -p "$rabbitmq_dir"/{data,log,generated,etc} "$rabbitmq_shared/home") || return 1
  [[ -s $rabbitmq_shared/password ]] || random_secret >"$rabbitmq_shared/password" || return 1
  # Made before any node starts, since the first of several would make it too late for the others.
  [[ -s $rabbitmq_shared/home/.erlang.cookie ]] ||
    { random_secret >"$rabbitmq_shared/home/.erlang.cookie" && chmod 400 "$rabbitmq_shared/home/.erlang.cookie"; }
}

# Of an earlier start: from a terminal that was closed, for instance, it may still be on its way up.
rabbitmq_take_over() {
  rabbitmq_alive && rabbitmq_read_ports || return 1
  send CONT "$pid"
  ! rabbitmq_await || return 0
  ! rabbitmq_alive || rabbitmq_fail "$rabbitmq_name runs but does not answer"
  return 1
}

rabbitmq_start_afresh() {
  local attempt
  umask 077
  rabbitmq_make_room || fail "$rabbitmq_dir cannot be made" 'its message is above'
  for attempt in 1 2 3; do
    ! { rabbitmq_launch && rabbitmq_read_ports && rabbitmq_await; } || return 0
    rabbitmq_kill
    if ((attempt == 3)) || ! rabbitmq_lost_race; then
      rabbitmq_fail "$rabbitmq_name did not start"
    fi
    # Those that met each other do not meet again.
    ((${#rabbitmq_peers[@]} == 0)) || sleep "${rabbitmq_name#rabbitmq-}"
  done
}

rabbitmq_start() {
  rabbitmq_installed || fail 'RabbitMQ is not installed' 'run: scripts/servers install'
  rabbitmq_fits
  rabbitmq_take_over || rabbitmq_start_afresh
  rabbitmq_publish_addresses
}

# One alone and a cluster have the same names in DIR/env; and a node of no cluster yet would make one of its own.
rabbitmq_fits() {
  if [[ $rabbitmq_name == rabbitmq ]]; then
    [[ ! -d $DIR/cluster ]] || fail "there is a cluster in $DIR" "run: scripts/servers start cluster $DIR, or take another directory"
  else
    [[ -e $DIR/cluster/formed || -n ${forming:-} ]] || fail "there is no cluster in $DIR yet" "run: scripts/servers start cluster $DIR"
  fi
}

rabbitmq_publish_addresses() {
  local password number=${rabbitmq_name#rabbitmq} amqp management
  password=$(<"$rabbitmq_shared/password")
  amqp=amqp://platziverse:$password@127.0.0.1:$amqp_port/%2f
  management=http://platziverse:$password@127.0.0.1:$management_port
  [[ $rabbitmq_name == rabbitmq-[23] ]] || env_set "$DIR/env" AMQP_URL "$amqp" MANAGEMENT_URL "$management"
  [[ -z $number ]] || env_set "$DIR/env" "AMQP_URL_${number#-}" "$amqp" "MANAGEMENT_URL_${number#-}" "$management"
}

# Another program took a port between our look and RabbitMQ's; or a peer answered before it knew its own feature flags,
# which RabbitMQ 3.10 takes for a peer that does not fit.
rabbitmq_lost_race() {
  tail -qn 60 "$rabbitmq_dir/log/console.log" "$rabbitmq_dir/log/$rabbitmq_node.log" 2>/dev/null |
    grep -qE 'eaddrinuse|already in use|port .* is not available|incompatible_feature_flags'
}

rabbitmq_fail() {
  local hint=()
  ((${#rabbitmq_peers[@]} == 0)) ||
    hint=("a node of a cluster serves only together with another one: scripts/servers start cluster $DIR")
  show_log "$rabbitmq_dir/log/$rabbitmq_node.log" "$rabbitmq_dir/log/console.log"
  fail "$1 (deadline ${SERVERS_TIMEOUT:-120} s)" "${hint[@]}" "all its logs: $rabbitmq_dir/log"
}

rabbitmq_stop() {
  if rabbitmq_alive; then
    send CONT "$pid"
    send TERM "$pid"
    wait_gone 60 "$pid" || rabbitmq_kill
  fi
  rabbitmq_stop_epmd
}

# Stopped first, so that it makes no more processes meanwhile.
rabbitmq_kill() {
  if rabbitmq_alive; then
    send STOP "$pid"
    descendants "$pid"
    send KILL "${family[@]}"
    wait_gone 10 "${family[@]}" || fail "$rabbitmq_name, process $pid, does not end even with SIGKILL"
  fi
  rabbitmq_stop_epmd
}

# With the last node that uses it.
rabbitmq_stop_epmd() (
  lock "$DIR/epmd.lock"
  for name in "$rabbitmq_name" "${rabbitmq_peers[@]}"; do
    ! pid_alive "$DIR/$name/vm.pid" || return 0
  done
  ! pid_alive "$rabbitmq_shared/epmd.pid" || {
    send KILL "$pid"
    wait_gone 5 "$pid" || true
  }
)

rabbitmq_pause() { rabbitmq_alive && send STOP "$pid"; }
rabbitmq_resume() { rabbitmq_alive && send CONT "$pid"; }

# A wrong cookie for each peer, in the VM's memory alone: the connections to them break, and none succeeds from either side.
rabbitmq_partition() {
  rabbitmq_alive || return 1
  rabbitmq_eval '[begin erlang:set_cookie(Peer, cut_off), erlang:disconnect_node(Peer) end || Peer <- PEERS], ok.' &&
    cp -- "$rabbitmq_dir/vm.pid" "$rabbitmq_dir/cut-off.pid"
}

rabbitmq_heal() {
  rabbitmq_alive || return 1
  rabbitmq_eval '[begin erlang:set_cookie(Peer, erlang:get_cookie()), net_adm:ping(Peer) end || Peer <- PEERS], ok.' &&
    rm -f -- "$rabbitmq_dir/cut-off.pid" && rabbitmq_read_ports && rabbitmq_await
}

# Only while the VM that was cut off runs: the next one knows nothing of it.
rabbitmq_cut_off() { [[ ${rabbitmq_name:-} == rabbitmq-* ]] && pid_alive "$rabbitmq_dir/cut-off.pid"; }

# rabbitmq_eval EXPRESSION: in the node, where PEERS stands for the list of the others.
rabbitmq_eval() {
  local peer list=''
  for peer in "${rabbitmq_peers[@]}"; do list+="${list:+,}'$(rabbitmq_node_of "$peer")'"; done
  (rabbitmq_ctl --quiet eval "${1/PEERS/[$list]}") >/dev/null
}

rabbitmq_describe() {
  rabbitmq_read_ports
  say "AMQP 127.0.0.1:$amqp_port, management http://127.0.0.1:$management_port"
}

rabbitmq_delete() {
  [[ $rabbitmq_name == rabbitmq ]] ||
    fail 'one node of a cluster cannot be deleted' "run: scripts/servers kill $rabbitmq_name $DIR, or scripts/servers delete cluster $DIR"
  rm -rf -- "$rabbitmq_dir"
  env_set "$DIR/env" AMQP_URL '' MANAGEMENT_URL ''
}

# rabbitmq_ctl ARGUMENT…: rabbitmqctl of this node, in place of this shell. Without a node it would find nobody, and leave
# an epmd of its own running.
rabbitmq_ctl() {
  { rabbitmq_alive && rabbitmq_read_ports; } ||
    fail "$rabbitmq_name does not run in $DIR" "run: scripts/servers start $rabbitmq_name $DIR"
  rabbitmq_prepare_environment
  cd "$rabbitmq_dir" || return 1
  exec "${rabbitmq_environment[@]}" "$rabbitmq_bin/rabbitmqctl" "$@"
}

# --- the cluster ---------------------------------------------------------------------------------------------------

cluster_exists() { [[ -d $DIR/cluster ]]; }

cluster_start() (
  lock "$DIR/cluster.lock"
  [[ ! -d $DIR/rabbitmq ]] ||
    fail "there is a RabbitMQ that stands alone in $DIR" 'take another directory for a cluster' "or: scripts/servers delete rabbitmq $DIR"
  if [[ -e $DIR/cluster/formed ]]; then
    # Together: a node whose peers stopped after it waits for one of them.
    act_on_each start "${rabbitmq_nodes[@]}"
  else
    cluster_form
  fi
)

# What an interrupted first start left is neither one cluster nor three nodes that can become one.
cluster_form() {
  forming=yes
  cluster_erase
  mkdir -p "$DIR/cluster"
  act start rabbitmq-1
  act_on_each start rabbitmq-2 rabbitmq-3
  cluster_whole || fail 'the three nodes run, but not as one cluster' "see: scripts/servers ctl $DIR cluster_status"
  : >"$DIR/cluster/formed"
}

# The first node's view of the others follows by some seconds.
cluster_whole() {
  local deadline=$((SECONDS + 30)) running
  rabbitmq_select rabbitmq-1
  rabbitmq_read_ports || return 1
  while ((SECONDS < deadline)); do
    running=$(http_body "$management_port" '/api/nodes?columns=running' "platziverse:$(<"$rabbitmq_shared/password")" |
      grep -o '"running":true' | wc -l) || true
    ((running < ${#rabbitmq_nodes[@]})) || return 0
    sleep 0.2
  done
  return 1
}

cluster_delete() (
  lock "$DIR/cluster.lock"
  cluster_erase
  say 'cluster: deleted'
)

cluster_erase() {
  local name keys=(AMQP_URL '' MANAGEMENT_URL '')
  act_on_each kill "${rabbitmq_nodes[@]}" >/dev/null
  for name in "${rabbitmq_nodes[@]}"; do
    keys+=("AMQP_URL_${name#*-}" '' "MANAGEMENT_URL_${name#*-}" '')
    rm -rf -- "${DIR:?}/$name"
  done
  rm -rf -- "$DIR/cluster"
  env_set "$DIR/env" "${keys[@]}"
}
