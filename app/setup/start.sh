# Finds a Python that is new enough and hands over to app.setup.begin.py.
set -eu
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
for python in "${SLIPWAY_PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$python" -I -c 'import sys
sys.path.insert(0, sys.argv[1])
from app.setup.begin import main
sys.exit(main(sys.argv[2:]))' "$root" "$@"
  fi
done
cat >&2 <<END
Slipway needs Python 3.11 or newer; none was found (python3 is: $(python3 --version 2>&1 || true)).
Install it (Debian 12, 13 and Ubuntu 24.04: apt-get install python3), or name one:
SLIPWAY_PYTHON=/path/to/python3 $root/$1
END
exit 1
