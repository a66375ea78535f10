#!/usr/bin/env bash
# A Slurm of one node and two cores in a folder of its own, beside any other on the machine.
#   cluster.sh start FOLDER    then: export SLURM_CONF=FOLDER/slurm.conf
#   cluster.sh stop FOLDER
# Needs Debian's slurm-wlm and munge.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)

free_ports() {
    python3 - <<'PYTHON'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))
PYTHON
}

# wait_until SECONDS CONDITION...
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

idle() { [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]]; }

empty() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }

gone() { ! kill -0 "$1" 2>/dev/null; }

start() {
    local host controller node
    host=$(hostname -s)
    read -r controller node < <(free_ports)
    mkdir -p "$root"/{state,spool,log,munge}
    # munge wants a socket that others could reach, and a key that they could not read
    chmod 755 "$root/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$root/munge/key")
    sed -e "s|@ROOT@|$root|g; s|@HOST@|$host|g; s|@USER@|$(id -un)|g" \
        -e "s|@CONTROLLER_PORT@|$controller|; s|@NODE_PORT@|$node|" \
        "$here/slurm.conf.in" >"$root/slurm.conf"
    munged --force --socket="$root/munge/socket" --key-file="$root/munge/key" \
        --pid-file="$root/munge/pid" --seed-file="$root/munge/seed" \
        --log-file="$root/log/munged.log" 2>"$root/log/munged.warnings"
    slurmctld -c
    slurmd -c -N "$host"
    if ! wait_until 30 idle; then
        echo "Slurm did not come up:" >&2
        tail -n 20 "$root"/log/*.log >&2
        stop
        return 1
    fi
}

stop() {
    local file pid
    if [[ -s $root/slurmctld.pid ]]; then
        scancel --user="$(id -un)" && wait_until 20 empty || true
    fi
    for file in "$root/slurmd.pid" "$root/slurmctld.pid" "$root/munge/pid"; do
        [[ -s $file ]] || continue
        pid=$(<"$file")
        kill "$pid" 2>/dev/null || continue
        wait_until 20 gone "$pid" || kill -KILL "$pid"
    done
}

if [[ $# -ne 2 || ! $1 =~ ^(start|stop)$ ]]; then
    echo "usage: $0 start|stop FOLDER" >&2
    exit 2
fi
mkdir -p "$2"
root=$(cd "$2" && pwd)
export SLURM_CONF=$root/slurm.conf
"$1"
