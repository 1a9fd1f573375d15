# Makes .venv beside the checkout and installs robustjax with the extras given as arguments. Sourced by quickstart.sh and test.sh.
# ROBUSTJAX_PYTHON names another interpreter than python3; ROBUSTJAX_VENV another folder.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${ROBUSTJAX_PYTHON:-python3}
venv=${ROBUSTJAX_VENV:-.venv}
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "error: robustjax needs Python 3.11 to 3.13; '$python' is $("$python" --version 2>&1). Set ROBUSTJAX_PYTHON." >&2
    exit 2
fi
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv" || { echo "error: could not make $venv; on Debian: apt install python3-venv" >&2; exit 2; }
fi
# Installed again only when packaging or the extras have changed.
stamp="$venv/.robustjax-$(cat setup.py pyproject.toml | cksum | cut -d' ' -f1)-${1:-plain}"
if [ ! -e "$stamp" ]; then
    echo "installing into $venv (once) ..." >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${1:+[$1]}" || exit 2
    touch "$stamp"
fi
