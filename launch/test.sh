#!/usr/bin/env bash
# The whole test suite, in the same environment with the test tools. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh" test
"$venv/bin/python" -m ruff check .
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
