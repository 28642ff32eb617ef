#!/usr/bin/env bash
# Run the development server of the llama.cpp Web UI against a running Tiles Server.
#
#   TILES_BACKEND     the server to talk to (http://127.0.0.1:6969)
#   LLAMA_CPP_ROOT    a checkout of llama.cpp; else third_party/llama.cpp, then ../llama.cpp, else one is cloned
#   LLAMA_CPP_REPO    where to clone from (the repository on GitHub)
#   TILES_WEBUI_WORK  where copies and clones go (~/.cache/tiles-server/webui-dev)
#
# Arguments go to Vite: scripts/llamacpp_webui.sh --port 5180. A checkout is only read: the UI runs from a copy.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
backend=${TILES_BACKEND:-http://127.0.0.1:6969}
backend=${backend%/}
repo=${LLAMA_CPP_REPO:-https://github.com/ggml-org/llama.cpp.git}
work=${TILES_WEBUI_WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/tiles-server/webui-dev}

say() { echo "webui: $*" >&2; }
fail() { say "$*"; exit 1; }

# Where in a checkout the UI is; newer ones first.
ui_of() {
    local place
    for place in tools/ui tools/server/webui; do
        if [ -f "$1/$place/package.json" ]; then
            echo "$1/$place"
            return
        fi
    done
    return 1
}

find_checkout() {
    local place
    if [ -n "${LLAMA_CPP_ROOT:-}" ]; then
        ui_of "$LLAMA_CPP_ROOT" >/dev/null || fail "LLAMA_CPP_ROOT=$LLAMA_CPP_ROOT has no Web UI (tools/ui) in it"
        echo "$LLAMA_CPP_ROOT"
        return
    fi
    for place in "$here/third_party/llama.cpp" "$here/../llama.cpp"; do
        if ui_of "$place" >/dev/null; then
            (cd "$place" && pwd)
            return
        fi
    done
    clone
    echo "$work/llama.cpp"
}

# Shallow, and of the files only those of the UI.
clone() {
    if ui_of "$work/llama.cpp" >/dev/null; then
        return
    fi
    command -v git >/dev/null || fail "git is needed to clone llama.cpp"
    say "no checkout of llama.cpp here; cloning its UI from $repo"
    rm -rf "$work/llama.cpp" "$work/llama.cpp.part"
    mkdir -p "$work"
    git clone --quiet --depth 1 --filter=blob:none --sparse --no-tags "$repo" "$work/llama.cpp.part" >&2 \
        || fail "cloning $repo failed; give a checkout with LLAMA_CPP_ROOT"
    git -C "$work/llama.cpp.part" sparse-checkout set tools/ui tools/server/webui >&2
    ui_of "$work/llama.cpp.part" >/dev/null || fail "$repo has no Web UI in tools/ui or tools/server/webui"
    mv "$work/llama.cpp.part" "$work/llama.cpp"
}

# Copy what changed; packages that are installed already stay.
copy() {
    mkdir -p "$2"
    find "$2" -mindepth 1 -maxdepth 1 ! -name node_modules ! -name .packages -exec rm -rf {} +
    (cd "$1" && tar cf - --exclude ./node_modules --exclude ./dist --exclude ./.svelte-kit .) | (cd "$2" && tar xf -)
}

install_packages() {
    local wanted
    wanted=$(cksum package-lock.json package.json)
    if [ "$(cat .packages 2>/dev/null)" != "$wanted" ]; then
        say "fetching packages (npm ci)"
        PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund >&2
        echo "$wanted" >.packages
    fi
}

# Older ones have the address of the backend written into vite.config.ts.
point_older_at_backend() {
    if ! grep -q 'VITE_PUBLIC_SERVER_ORIGIN' vite.config.ts; then
        grep -q 'http://localhost:8080' vite.config.ts || fail "vite.config.ts of this llama.cpp has no backend to change"
        sed -e "s|http://localhost:8080|$backend|g" vite.config.ts >vite.config.ts.new
        mv vite.config.ts.new vite.config.ts
    fi
}

command -v npm >/dev/null || fail "npm is needed (Node.js 20 or newer)"
checkout=$(find_checkout)
ui=$(ui_of "$checkout")
say "the UI is in $ui, its backend is $backend"
copy=$work/$(echo "$ui" | cksum | cut -d ' ' -f 1)/ui
copy "$ui" "$copy"
cd "$copy"
install_packages
point_older_at_backend
export VITE_PUBLIC_SERVER_ORIGIN=$backend
exec npx vite dev "$@"
