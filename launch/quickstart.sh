#!/usr/bin/env bash
# Set-up, training of a plain baseline and SPIDER on scikit-learn's digits, evaluation of both, one table and a figure.
# Arguments go to launch/quickstart.py, e.g. --seeds=1 or --out=DIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh" ""
exec "$venv/bin/python" launch/quickstart.py "$@"
