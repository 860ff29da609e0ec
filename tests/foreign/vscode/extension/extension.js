// Two debug types: `rdev` starts `rdev dap`, `debugpy` goes to a port, as Microsoft's does for an attach.
const fs = require("node:fs");
const vscode = require("vscode");

const log = process.env.RDEV_TEST_DAP_LOG;

function note(direction, message) {
  if (log) fs.appendFileSync(log, `${direction} ${JSON.stringify(message)}\n`);
}

exports.activate = (context) => {
  const executable = (session) =>
    new vscode.DebugAdapterExecutable("rdev", ["dap"], { cwd: session.workspaceFolder.uri.fsPath });
  const port = (session) =>
    new vscode.DebugAdapterServer(session.configuration.connect.port, session.configuration.connect.host);
  const tracker = {
    createDebugAdapterTracker: () => ({
      onWillReceiveMessage: (message) => note(">", message),
      onDidSendMessage: (message) => note("<", message),
      onError: (error) => note("!", String(error)),
      onExit: (code, signal) => note("!", ["exit", code, signal]),
      onWillStartSession: () => note("!", "start"),
    }),
  };
  context.subscriptions.push(
    vscode.debug.registerDebugAdapterDescriptorFactory("rdev", { createDebugAdapterDescriptor: executable }),
    vscode.debug.registerDebugAdapterDescriptorFactory("debugpy", { createDebugAdapterDescriptor: port }),
    vscode.debug.registerDebugAdapterTrackerFactory("*", tracker),
  );
};
