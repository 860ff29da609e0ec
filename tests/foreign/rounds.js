// Debugs a running job round after round with Microsoft's test client for debug adapters.
// usage: node rounds.js '{"adapter": [...], "port": N, "attach": {...}, "path": ..., "line": N, "rounds": N}'
// Either `adapter` is the command of a stdio adapter, or `port` that of one that listens.
// Prints the value of `step` at each round's breakpoint, as JSON.

const { spawn } = require("child_process");
const assert = require("assert");
const { DebugClient } = require("@vscode/debugadapter-testsupport");

const order = JSON.parse(process.argv[2]);
const TIMEOUT_MS = 30000;

async function connected() {
  const client = new DebugClient("", "", "rdev");
  client.defaultTimeout = TIMEOUT_MS;
  if (order.port) {
    await client.start(order.port);
    return { client, ended: Promise.resolve(0) };
  }
  const [command, ...words] = order.adapter;
  const adapter = spawn(command, words, { stdio: ["pipe", "pipe", "inherit"], cwd: order.folder });
  client.connect(adapter.stdout, adapter.stdin);
  const ended = new Promise((resolve) => adapter.on("exit", (code) => resolve(code)));
  return { client, ended };
}

async function round() {
  const { client, ended } = await connected();
  const initialized = client.waitForEvent("initialized", TIMEOUT_MS);
  const capabilities = await client.initializeRequest();
  assert(capabilities.body.supportsConditionalBreakpoints);
  const attached = client.attachRequest(order.attach);
  await Promise.race([initialized, attached.then(() => initialized)]);
  const source = { path: order.path };
  const set = await client.setBreakpointsRequest({ source, breakpoints: [{ line: order.line }] });
  assert.deepStrictEqual([set.body.breakpoints[0].verified, set.body.breakpoints[0].line], [true, order.line]);
  const hit = client.assertStoppedLocation("breakpoint", { path: order.path, line: order.line });
  await client.configurationDoneRequest();
  await attached;
  const [frame] = (await hit).body.stackFrames;
  const threadId = (await client.threadsRequest()).body.threads[0].id;

  const scopes = (await client.scopesRequest({ frameId: frame.id })).body.scopes;
  const variablesReference = scopes[0].variablesReference;
  const locals = (await client.variablesRequest({ variablesReference })).body.variables;
  const step = Number(locals.find((variable) => variable.name === "step").value);
  const evaluated = await client.evaluateRequest({ expression: "loss == step * 2", frameId: frame.id });
  assert.strictEqual(evaluated.body.result, "True");

  const next = client.assertStoppedLocation("step", { path: order.path, line: order.line + 1 });
  await client.nextRequest({ threadId });
  await next;
  const again = client.assertStoppedLocation("breakpoint", { path: order.path, line: order.line });
  await client.continueRequest({ threadId });
  await again;
  await client.disconnectRequest();
  client.stop();
  assert.strictEqual(await ended, 0);
  return step;
}

async function main() {
  const steps = [];
  for (let number = 0; number < order.rounds; number++) steps.push(await round());
  console.log(JSON.stringify(steps));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  }
);
