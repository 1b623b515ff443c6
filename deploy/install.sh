#!/bin/sh
# Install gofax-relay as a service of systemd, or update it: then run it again with the new wheel.
#
#   sudo deploy/install.sh gofax_relay-0.1.0-py3-none-any.whl
#
# It starts nothing, and leaves a config and secrets that are there as they are. docs/hosting.md
# says what comes next, and how all of it is removed.
set -eu
umask 022

[ $# -eq 1 ] && [ -f "$1" ] || { echo "usage: $0 gofax_relay-VERSION-py3-none-any.whl" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "$0: run it as root" >&2; exit 1; }
python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' || {
  echo "$0: needs python3 3.11 or newer with venv (Debian: apt install python3-venv)" >&2
  exit 1
}
from=$(cd "$(dirname "$0")/.." && pwd)
user=gofax-relay
environment=/opt/gofax-relay/.venv
program=$environment/bin/gofax-relay

# ProtectHome of the unit hides homes, and so a Python that lives in one (of pyenv, uv, conda).
for python in python3 "$environment/bin/python"; do
  command -v "$python" >/dev/null || continue
  home=$("$python" -c 'import os, sys
homes = ("/root/", "/home/", "/run/user/")
found = [os.path.realpath(each) + "/" for each in (sys.executable, sys.base_prefix)]
print(*[each for each in found if each.startswith(homes)][:1])')
  [ -n "$home" ] || continue
  echo "$0: $python is in $home, which the service may not see." >&2
  echo "Take a Python of the system: PATH=/usr/bin:\$PATH $0 $1" >&2
  [ "$python" = python3 ] || echo "Remove this one first: rm -r $environment" >&2
  exit 1
done

id "$user" >/dev/null 2>&1 ||
  useradd --system --user-group --no-create-home --home-dir /var/lib/gofax-relay \
    --shell /usr/sbin/nologin "$user"

# The tested versions, each by its hash, and only then the relay itself.
install -d -m 755 /opt/gofax-relay
[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
  --only-binary :all: -r "$from/constraints.txt"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
  --force-reinstall "$1"

# What the relay may read and not change; what is its own; what root alone may read.
install -d -m 750 -o root -g "$user" /etc/gofax-relay
[ -e /etc/gofax-relay/config.yaml ] ||
  install -m 640 -o root -g "$user" "$from/deploy/small.yaml" /etc/gofax-relay/config.yaml
install -m 644 "$from/config.example.yaml" /etc/gofax-relay/config.example.yaml
install -d -m 700 -o "$user" -g "$user" /var/lib/gofax-relay /var/backups/gofax-relay
[ -d /etc/credstore ] || install -d -m 700 /etc/credstore
for name in gofax-signing-secret gofax-metrics-token; do
  [ ! -e "/etc/credstore/$name" ] || continue
  printf 'made /etc/credstore/%s: ' "$name"
  (umask 077 && "$program" secrets generate >"/etc/credstore/$name") 2>&1
done

install -m 644 "$from/deploy/gofax-relay.service" "$from/deploy/gofax-relay.socket" \
  /etc/systemd/system/
install -m 755 "$from/deploy/as-service.sh" /usr/local/bin/gofax-relay
[ ! -d /run/systemd/system ] || systemctl daemon-reload

/usr/local/bin/gofax-relay check
echo "Installed. To start it: systemctl enable --now gofax-relay.socket gofax-relay"
echo "If it runs already:     systemctl reload gofax-relay"
