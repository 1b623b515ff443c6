#!/bin/sh
# /usr/local/bin/gofax-relay: for root, the command as the user of the service, with its config,
# its variables and its credentials, which end with the command. Others run it as themselves.
set -eu
umask 077
user=gofax-relay
program=/opt/gofax-relay/.venv/bin/gofax-relay
variables=/etc/gofax-relay/secrets.env
unit=/etc/systemd/system/gofax-relay.service
export GOFAX_RELAY_CONFIG="${GOFAX_RELAY_CONFIG:-/etc/gofax-relay/config.yaml}"
[ "$(id -u)" -eq 0 ] || exec "$program" "$@"

# The variables of the service, as systemd reads plain lines of its EnvironmentFile.
if [ -f "$variables" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    name=${line%%=*} value=${line#*=}
    case "$name" in "$line" | '' | [0-9]* | *[!A-Za-z0-9_]*) continue ;; esac
    case "$value" in \"*\" | "'"*"'") value=${value#?} value=${value%?} ;; esac
    export "$name=$value"
  done <"$variables"
fi

# root's home is not for this user.
export HOME=/var/lib/gofax-relay
CREDENTIALS_DIRECTORY=$(mktemp -d /run/gofax-relay.XXXXXX)
export CREDENTIALS_DIRECTORY
trap 'rm -rf "$CREDENTIALS_DIRECTORY"' EXIT
trap 'exit 130' INT TERM HUP
chown "$user:" "$CREDENTIALS_DIRECTORY"
cat "$unit" "$unit.d"/*.conf 2>/dev/null | sed -n 's/^LoadCredential=\([^:/]*\)$/\1/p' |
  while read -r name; do
    [ ! -f "/etc/credstore/$name" ] ||
      install -m 400 -o "$user" "/etc/credstore/$name" "$CREDENTIALS_DIRECTORY/"
  done
setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs "$program" "$@"
