#!/usr/bin/env bash
# Builds what would be published, installs it in a clean folder, and uses it from there: its types by a program that is
# compiled, and its code by the example, if KINGPOLE says the server's command and the demo model is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
client=$PWD
root=$(cd ../.. && pwd)
demo=${KINGPOLE_DEMO:-$root/.cache/demo}
picture=${KINGPOLE_DEMO_PICTURE:-$(compgen -G "$root/.venv/lib/python*/site-packages/skimage/data/coffee.png" | head -1 || true)}

[[ -d node_modules ]] || npm ci --no-audit --no-fund
clean=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || kill "$server" 2> /dev/null || true
  rm -rf "$clean"
}
trap finish EXIT

rm -rf dist
npm pack --silent --pack-destination "$clean"
cd "$clean"
tar -tzf kingpole-client-*.tgz | sort
cat > package.json << 'JSON'
{ "name": "clean", "private": true, "type": "module" }
JSON
npm install --silent --no-audit --no-fund ./kingpole-client-*.tgz pngjs@7 typescript@~6.0.0
echo "installed: $(ls node_modules | tr '\n' ' ')"

# A page knows nothing of Node: its types must not need it.
cat > page.ts << 'TS'
import { connect, type InferResponse, NotFound, Tensor } from "@kingpole/client";

const client = connect("http://localhost:8000", { timeoutMs: 1000 });
export async function scores(): Promise<Float32Array> {
  const response: InferResponse = await client.infer("m", { x: Tensor.fp16([1, 2]) });
  for await (const part of client.stream("m", {})) console.log(part.stage);
  return response.output("y", "FP32").data;
}
export const isAbsent = (error: unknown): boolean => error instanceof NotFound && error.code === "NOT_FOUND";
TS
cat > tsconfig.json << 'JSON'
{
  "compilerOptions": {
    "noEmit": true,
    "strict": true,
    "target": "es2022",
    "module": "nodenext",
    "lib": ["es2022", "dom", "dom.asynciterable"],
    "types": [],
    "skipLibCheck": false
  },
  "files": ["page.ts"]
}
JSON
npx tsc
echo "the types fit"

node --input-type=module -e 'import { connect } from "@kingpole/client/node"; connect("frame://localhost:1").close(); console.log("imported");'
if [[ -z ${KINGPOLE-} || ! -d $demo || ! -f $picture ]]; then
  echo "the example is not run: it needs KINGPOLE, the demo model at $demo and its picture (make demo)"
  exit 0
fi
$KINGPOLE serve "$demo" --listen 127.0.0.1:0 --management off 2> server.log &
server=$!
for _ in $(seq 600); do
  grep -q '^ready,' server.log && break
  kill -0 "$server" || { cat server.log; exit 1; }
  sleep 0.1
done
url=$(grep -o 'http://[0-9.]*:[0-9]*' server.log | head -1)
cp "$client/examples/classify.mjs" .
node classify.mjs "$picture" --url "$url" --labels "$root/server/kingpole/demo/labels.txt" | tee guesses
head -1 guesses | grep -q espresso
node classify.mjs "$picture" --url "${url/http/frame}" --labels "$root/server/kingpole/demo/labels.txt" | head -1 | grep -q espresso
