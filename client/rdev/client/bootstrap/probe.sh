# What a first contact wants to know of a machine. POSIX sh; read from stdin by `sh -s`, behind two
# lines that set wish_home and wish_python. Nothing is written. All is one function, which a shell reads
# whole before it runs: from then on the script is no longer what stdin is.
#
#     rdev-probe begin          whatever rc files printed before this line is passed over
#     key=value                 one a line; lists repeat their key; fields are parted by tabs
#     rdev-probe end

probe() {
LC_ALL=C
export LC_ALL
PATH=${PATH:-/usr/bin:/bin}

say() { printf '%s=%s\n' "$1" "$2"; }
has() { command -v "$1" >/dev/null 2>&1; }
# Nothing may hold the probe up: not a module system on a dead file server, not a stopped manager,
# and not a wrapper that ignores that it is to end.
if has timeout && timeout -k 1 1 true 2>/dev/null; then
    limit() { timeout -k 1 5 "$@" 2>/dev/null; }
elif has timeout && timeout 1 true 2>/dev/null; then
    limit() { timeout 5 "$@" 2>/dev/null; }
else
    limit() { "$@" 2>/dev/null; }
fi

echo 'rdev-probe begin'
say system "$(uname -s 2>/dev/null)"
say machine "$(uname -m 2>/dev/null)"
say kernel "$(uname -r 2>/dev/null)"
say hostname "$(uname -n 2>/dev/null)"
uid=$(id -u 2>/dev/null)
say uid "$uid"
say login "$HOME"
say shell "$SHELL"

libc=$(limit getconf GNU_LIBC_VERSION)
if [ -z "$libc" ]; then
    for loader in /lib/ld-musl-*; do
        [ -e "$loader" ] && libc=musl
    done
fi
say libc "$libc"

# The file system of a folder that may not exist yet: free KiB, kind, and whether it may execute.
place() {
    folder=$2
    while [ ! -d "$folder" ] && [ "$folder" != / ] && [ -n "$folder" ]; do
        folder=${folder%/*}
        [ -n "$folder" ] || folder=/
    done
    free= point= kind=- flags=
    # A long device name has a line of its own without -P, and spaces in it are nobody's habit.
    # shellcheck disable=SC2046
    set -- "$1" "$2" $(limit df -Pk "$folder" | tail -n 1)
    [ $# -ge 8 ] && free=$6 && shift 7 && point=$*
    set -f
    while read -r _device where what flag _rest; do
        [ "$where" = "$point" ] && kind=$what && flags=$flag
    done </proc/mounts 2>/dev/null
    set +f
    may=exec
    case ",$flags," in *,noexec,*) may=noexec ;; esac
    [ -w "$folder" ] && able=writable || able=readonly
    say "$place_key" "$place_path	$free	$kind	$may	$able"
}

case $wish_home in
    '') root=$HOME/.rdev ;;
    '~/'*) root=$HOME/${wish_home#'~/'} ;;
    /*) root=$wish_home ;;
    *) root=$HOME/$wish_home ;;
esac
place_key=root place_path=$root
place - "$root"
for spare in /var/tmp /scratch "/scratch/$LOGNAME" /local "/local/$LOGNAME" /localscratch /data; do
    [ -d "$spare" ] && [ -w "$spare" ] && place_key=spare place_path=$spare && place - "$spare"
done

# Where an earlier contact put releases if not in the home, and what lies there.
dist=$root/dist
if [ -f "$root/dist-folder" ]; then
    read -r dist <"$root/dist-folder"
fi
if [ -d "$dist" ] && [ -O "$dist" ] 2>/dev/null; then
    say dist "$dist"
    [ -r "$dist/home-id" ] && read -r home_id <"$dist/home-id"
    say home_id "$home_id"
    for release in "$dist"/*/bin/rdev-agent; do
        [ -x "$release" ] || continue
        release=${release%/bin/rdev-agent}
        # What an installer has begun, or is about to remove, is no release.
        case ${release##*/} in *.new-* | *.old-*) continue ;; esac
        # A Python that was removed leaves a link to nothing, and a release that does not run.
        [ -x "$release/bin/python" ] && limit "$release/bin/python" -I -S -c '' && say release "${release##*/}"
    done
fi

has sbatch && say sbatch "$(command -v sbatch)"
if has nvidia-smi || [ -e /dev/nvidiactl ]; then say gpu yes; fi
if has systemd-run && [ -n "$XDG_RUNTIME_DIR" ] && limit systemctl --user show-environment >/dev/null; then
    say user_manager yes
fi
if has loginctl; then
    say kill_user_processes "$(limit loginctl show-session -p KillUserProcesses --value)"
    say linger "$(limit loginctl show-user "$uid" -p Linger --value)"
fi

# What a Python says of itself; it must run by itself, as the agent's will.
about='
import sys, struct, os, platform
from importlib.util import find_spec
def of(name):
    try: return os.confstr(name) or ""
    except (OSError, ValueError, AttributeError): return ""
abi = getattr(sys, "abiflags", "")
print("\t".join([
    ".".join(str(n) for n in sys.version_info[:3]), sys.implementation.name, abi,
    str(struct.calcsize("P") * 8), platform.machine(), of("CS_GNU_LIBC_VERSION"),
    os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "pip" if find_spec("pip") else "",
]))'
tried=:
python() { # python SOURCE PATH
    [ -x "$2" ] && [ ! -d "$2" ] || return 0
    case $tried in *":$2:"*) return 0 ;; esac
    tried=$tried$2:
    told=$(limit "$2" -I -c "$about" | tail -n 1)
    [ -n "$told" ] && say python "$1	$2	$told"
    case $told in 3.1[1-9].*|3.[2-9][0-9].*) found=yes ;; esac
}
found=

case $wish_python in
    '' | uv) ;;
    *)
        case $wish_python in
            '~/'*) wish_python=$HOME/${wish_python#'~/'} ;;
            */*) ;;
            *) wish_python=$(command -v "$wish_python" || echo "$wish_python") ;;
        esac
        if [ -d "$wish_python" ]; then
            for name in python3 python; do
                [ -x "$wish_python/bin/$name" ] && wish_python=$wish_python/bin/$name && break
            done
        fi
        say wished "$wish_python"
        python wish "$wish_python"
        ;;
esac

# `python3` of the login environment first, in whatever folder; then every folder of PATH.
python path "$(command -v python3)"
old_ifs=$IFS
IFS=:
set -f
# shellcheck disable=SC2086
set -- $PATH /usr/local/bin /usr/bin
set +f
IFS=$old_ifs
for folder; do
    for name in python3 python3.10 python3.11 python3.12 python3.13 python3.14; do
        python path "$folder/$name"
    done
done
for prefix in "$CONDA_PREFIX" "$MAMBA_ROOT_PREFIX" "$HOME/miniconda3" "$HOME/anaconda3" \
    "$HOME/miniforge3" "$HOME/mambaforge" "$HOME/micromamba" /opt/conda /opt/miniconda3; do
    [ -n "$prefix" ] && [ -d "$prefix" ] || continue
    for folder in "$prefix" "$prefix"/envs/*; do
        python conda "$folder/bin/python3"
    done
done
for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9]*/bin/python3; do
    python pyenv "$path"
done
for path in "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/cpython-3.1[1-9]*/bin/python3; do
    python uv "$path"
done

# Modules cost a second or more, so they are asked only if nothing else was found.
modules() {
    for init in /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh /etc/profile.d/modules.sh \
        /usr/share/lmod/lmod/init/sh /usr/share/modules/init/sh "$MODULESHOME/init/sh"; do
        [ -r "$init" ] && break
        init=
    done
    [ -n "$init" ] || return 0
    for module in $(limit sh -c '. "$1" >/dev/null 2>&1; module -t avail 2>&1' sh "$init" |
        grep -i -E '^(.*/)?(c?python3?|python3?-core)/3\.1[1-9]' | head -n 4); do
        python module "$(limit sh -c '. "$1" >/dev/null 2>&1
            module load "$2" >/dev/null 2>&1; command -v python3' sh "$init" "${module%%(*}")"
    done
}
[ -n "$found" ] || modules

for uv in "$(command -v uv)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
    [ -n "$uv" ] && [ -x "$uv" ] && say uv "$uv" && break
done
echo 'rdev-probe end'
}
probe </dev/null
