#!/usr/bin/env bash
# Installs what is missing, builds the program and lets the bundled model answer two short prompts
# and a long one on four CPU instances; then serves it, asks one question over HTTP, and in a terminal
# goes on serving until Ctrl-C. Options are passed on to `nanocp generate`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

tools/install_packages.sh run
# A build folder that has the tests keeps them; a new one needs only the program.
if [[ ! -f build/cpu/build.ninja ]]; then
  cmake --preset cpu -DNANOCP_TESTS=OFF -DNANOCP_BENCH=OFF >/dev/null
fi
cmake --build --preset cpu --target nanocp --parallel "$(num_jobs)"

# A shard of 64 tokens is too little to be worth a second instance on real models; here it shows
# how the long prompt (the start of ARCHITECTURE.md) is spread while the short ones stay local.
echo "build/cpu/bin/nanocp generate --instances 4 --min-tokens-per-shard 64 --max-tokens 24 ..."
build/cpu/bin/nanocp generate --instances 4 --min-tokens-per-shard 64 --max-tokens 24 \
  --prompt "Hello" \
  --prompt "We the People of the United States," \
  --prompt "$(head -c 1500 ARCHITECTURE.md)" "$@"

port="${PORT:-8000}"
url="http://127.0.0.1:$port"
echo
echo "build/cpu/bin/nanocp serve --instances 4 --port $port"
build/cpu/bin/nanocp serve --instances 4 --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  curl -sf "$url/ready" >/dev/null && break
  kill -0 "$server" 2>/dev/null || { echo "error: the server did not start; is port $port taken? PORT=8001 make run" >&2; exit 1; }
  sleep 0.1
done
body='{"messages": [{"role": "user", "content": "What does the Constitution say of the States?"}], "max_tokens": 60}'
echo
echo "curl $url/v1/chat/completions -H 'Content-Type: application/json' -d '$body'"
curl -sf --max-time 60 "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "$body"
echo
if [[ -t 0 && -t 1 ]]; then
  echo
  echo "The model is at $url (open it in a browser). Ctrl-C ends."
  wait "$server"
fi
