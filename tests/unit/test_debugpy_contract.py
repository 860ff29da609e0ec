"""Every internal of debugpy and pydevd that rdev uses is there and does what rdev believes.

The hook's remedies lean on them. A new debugpy that fails here needs its sources read again.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest
from tests.support.interpreters import interpreters

from rdev.agent.debug.vendor import BELOW, OLDEST, debugpy_folder

IN_A_PROCESS_OF_ITS_OWN = """
import inspect, sys
sys.path.insert(0, {folder!r})
import debugpy.server
import pydevd
{body}
"""


PYTHONS = {v: path for v, path in interpreters().items() if v != "3.10"}
OURS = ".".join(map(str, sys.version_info[:2]))


def inside(body: str, *, version: str = OURS) -> str:
    """Runs code where pydevd is loaded; it patches the interpreter, so never in this process."""
    source = IN_A_PROCESS_OF_ITS_OWN.format(folder=debugpy_folder(), body=body)
    done = subprocess.run(
        [PYTHONS[version], "-I", "-X", "frozen_modules=off", "-c", source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_installed_debugpy_is_one_that_was_read():
    assert inside("print(debugpy.__version__)").startswith("1.8.")
    assert OLDEST < BELOW


EXPRESSIONS = [
    # patch.py: a parked thread looks again after a command
    (
        "list(inspect.signature(__import__('_pydevd_bundle.pydevd_comm', fromlist=['_'])"
        ".InternalThreadCommand.do_it).parameters) == ['self', 'dbg']"
    ),
    "'thread_id' in inspect.signature(pydevd.PyDB.get_internal_queue_and_event).parameters",
    # patch.py: a command that raises what is no Exception is answered, a condition that raises told
    (
        "(lambda comm: b'important' in comm.NetCommand(comm.CMD_WRITE_TO_CONSOLE, 0,"
        " {'body': 'important'}, is_json=True)._as_bytes and comm.CMD_RETURN > 0)"
        "(sys.modules['_pydevd_bundle.pydevd_comm'])"
    ),
    (
        "list(inspect.signature(pydevd.PyDB.handle_breakpoint_condition).parameters)"
        " == ['self', 'info', 'pybreakpoint', 'new_frame']"
    ),
    # interrupting.py: where what was typed is executed, and a value's text made
    (
        "(lambda v: list(inspect.signature(v.evaluate_expression).parameters)"
        " == ['py_db', 'frame', 'expression', 'is_exec'] and 'eval' not in vars(v)"
        " and 'eval' in v.eval_in_context.__code__.co_names"
        " and {'eval', 'Exec'} <= set(v.evaluate_expression.__wrapped__.__code__.co_names))"
        "(sys.modules['_pydevd_bundle.pydevd_vars'])"
    ),
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_safe_repr'].SafeRepr.__call__)"
        ".parameters) == ['self', 'obj']"
    ),
    # answering.py: the request that interrupts, the lines that are ours, what is printed
    (
        "(lambda m: not hasattr(m, 'on_cancel_request') and list(inspect.signature("
        "m.on_disconnect_request).parameters) == ['self', 'py_db', 'request'])"
        "(sys.modules['_pydevd_bundle.pydevd_process_net_command_json'].PyDevJsonCommandProcessor)"
    ),
    (
        "'request' in inspect.signature(sys.modules["
        "'_pydevd_bundle._debug_adapter.pydevd_base_schema'].build_response).parameters"
    ),
    (
        "(lambda f: list(inspect.signature(f.make_evaluation_timeout_msg).parameters)"
        " == ['self', 'py_db', 'expression', 'curr_thread'] and list(inspect.signature("
        "f.make_skipped_step_in_because_of_filters).parameters) == ['self', 'py_db', 'frame'])"
        "(sys.modules['_pydevd_bundle.pydevd_net_command_factory_json'].NetCommandFactoryJson)"
    ),
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_io'].RedirectToPyDBIoMessages"
        ".write).parameters) == ['self', 's']"
    ),
    (
        "all(getattr(sys.modules['_pydevd_bundle.pydevd_utils'].Timer(), name)(1.0, *args)"
        ".startswith('pydevd warning: ') for name, args in"
        " (('_compute_repr_slow', ('', 'x', int)), ('_compute_get_attr_slow', (int, 'x'))))"
    ),
    # forgetting.py: what keeps frames, and what is done in its place
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_xml'].ExceptionOnEvaluate"
        ".__init__).parameters)[1:] == ['result', 'etype', 'tb']"
    ),
    (
        "set(pydevd.PyDB.set_tracing_for_untraced_contexts.__code__.co_names) >="
        " {'PYDEVD_USE_SYS_MONITORING', 'update_monitor_events', '_current_frames',"
        " 'set_trace_for_frame_and_parents', 'restart_events'}"
    ),
    (
        "hasattr(sys.modules['_pydevd_bundle.pydevd_additional_thread_info']"
        ".PyDBAdditionalThreadInfo, 'get_topmost_frame')"
    ),
    # vendor.py: pydevd's log is nowhere until its stream is made
    (
        "sys.modules['_pydev_bundle.pydev_log']._LoggingGlobals._debug_stream"
        " is sys.modules['_pydevd_bundle.pydevd_constants'].NULL"
        " and '_debug_stream_initialized' in sys.modules['_pydev_bundle.pydev_log']"
        ".initialize_debug_stream.__code__.co_names"
    ),
    # patch.py: the client is ready, and a stop that the program asks for
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_api'].PyDevdAPI.run).parameters)"
        " == ['self', 'py_db']"
    ),
    (
        "'self.api.run(py_db)' in inspect.getsource(__import__("
        "'_pydevd_bundle.pydevd_process_net_command_json', fromlist=['_'])"
        ".PyDevJsonCommandProcessor.on_configurationdone_request)"
    ),
    (
        "list(inspect.signature(pydevd.PyDB.trigger_exception_handler).parameters)"
        " == ['self', 'excinfo', 'as_uncaught']"
    ),
    "'stop_at_frame' in inspect.signature(pydevd.settrace).parameters",
    # summary.py: who is asked first for a value's text and parts
    (
        "all(isinstance(sys.modules['_pydevd_bundle.pydevd_extension_utils'].extensions_of_type(k),"
        " list) for k in (sys.modules['_pydevd_bundle.pydevd_extension_api']"
        ".StrPresentationProvider, sys.modules['_pydevd_bundle.pydevd_extension_api']"
        ".TypeResolveProvider))"
    ),
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_safe_repr'].SafeRepr._repr)"
        ".parameters) == ['self', 'obj', 'level']"
    ),
    # patch.py: our socket instead of a TCP connection
    "'start_client' in pydevd.PyDB.connect.__code__.co_names",
    "list(inspect.signature(pydevd.start_client).parameters) == ['host', 'port']",
    # patch.py: the bracket around a stop
    (
        "list(inspect.signature(pydevd.PyDB.do_wait_suspend).parameters)"
        " == ['self', 'thread', 'frame', 'event', 'arg', 'exception_type']"
    ),
    # patch.py: the disposal
    (
        "list(inspect.signature(pydevd.PyDB.dispose_and_kill_all_pydevd_threads).parameters)"
        " == ['self', 'wait', 'timeout']"
    ),
    "'pydb_disposed' in pydevd.PyDB.dispose_and_kill_all_pydevd_threads.__code__.co_names",
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_api'].PyDevdAPI"
        ".request_disconnect).parameters) == ['self', 'py_db', 'resume_threads']"
    ),
    "callable(sys.modules['_pydevd_bundle.pydevd_constants'].get_global_debugger)",
    "callable(sys.modules['_pydevd_bundle.pydevd_constants'].set_global_debugger)",
    # patch.py: why a thread stopped
    "sys.modules['_pydevd_bundle.pydevd_comm_constants'].CMD_SET_BREAK",
    (
        "__import__('_pydevd_bundle.pydevd_net_command_factory_json', fromlist=['x'])"
        ".NetCommandFactoryJson._STEP_REASONS"
    ),
    (
        "__import__('_pydevd_bundle.pydevd_net_command_factory_json', fromlist=['x'])"
        ".NetCommandFactoryJson._EXCEPTION_REASONS"
    ),
    # release.py
    (
        "issubclass(pydevd.ReaderThread,"
        " sys.modules['_pydevd_bundle.pydevd_daemon_thread'].PyDBDaemonThread)"
    ),
    "callable(sys.modules['_pydev_bundle.pydev_monkey'].undo_patch_thread_modules)",
    "callable(sys.modules['_pydevd_bundle.pydevd_additional_thread_info'].remove_additional_info)",
    "callable(sys.modules['pydevd_tracing'].restore_sys_set_trace_func)",
    (
        "list(inspect.signature(sys.modules['pydevd_tracing'].set_trace_to_threads).parameters)"
        " == ['tracing_func', 'thread_idents', 'create_dummy_thread']"
    ),
    "hasattr(pydevd.SetupHolder, 'setup')",
    # release.py: a thread that is let go without a lock
    "sys.modules['_pydevd_bundle.pydevd_constants'].STATE_RUN == 1",
    (
        "all(hasattr(sys.modules['_pydevd_bundle.pydevd_additional_thread_info']"
        ".PyDBAdditionalThreadInfo(), name) for name in ('pydev_state', 'pydev_step_cmd',"
        " 'pydev_original_step_cmd', 'pydev_step_stop', 'is_in_wait_loop'))"
    ),
    # patch.py: a client that leaves, and one that is ready
    (
        "'request_disconnect' in __import__('_pydevd_bundle.pydevd_process_net_command_json',"
        " fromlist=['x']).PyDevJsonCommandProcessor.on_disconnect_request.__code__.co_names"
    ),
    (
        "list(inspect.signature(sys.modules['_pydevd_bundle.pydevd_api'].PyDevdAPI.run)"
        ".parameters) == ['self', 'py_db']"
    ),
    (
        "'run' in __import__('_pydevd_bundle.pydevd_process_net_command_json',"
        " fromlist=['x']).PyDevJsonCommandProcessor.on_configurationdone_request.__code__.co_names"
    ),
    # patch.py: an exception that has ended the program
    (
        "list(inspect.signature(pydevd.PyDB.trigger_exception_handler).parameters)[:3]"
        " == ['self', 'excinfo', 'as_uncaught']"
    ),
    # our threads: who is neither traced nor stopped
    (
        "'is_pydev_daemon_thread' in inspect.getsource("
        "sys.modules['_pydevd_bundle.pydevd_utils'].get_non_pydevd_threads)"
    ),
    (
        "'pydev_do_not_trace' in inspect.getsource(__import__("
        "'_pydevd_bundle.pydevd_thread_lifecycle', fromlist=['x']).suspend_all_threads)"
    ),
    (
        "set(inspect.signature(pydevd.settrace).parameters) >= {'host', 'port', 'suspend',"
        " 'trace_only_current_thread', 'patch_multiprocessing', 'stop_at_frame',"
        " 'wait_for_ready_to_run', 'block_until_connected', 'dont_trace_start_patterns',"
        " 'dont_trace_end_patterns', 'access_token', 'client_access_token', 'notify_stdin'}"
    ),
    "callable(pydevd.stoptrace)",
    (
        "isinstance(sys.modules['_pydevd_sys_monitoring._pydevd_sys_monitoring']"
        "._code_to_func_code_info_cache, dict)"
    ),
    "callable(sys.modules['_pydevd_sys_monitoring.pydevd_sys_monitoring'].stop_monitoring)",
    "callable(sys.modules['_pydevd_sys_monitoring.pydevd_sys_monitoring'].reset_thread_local_info)",
]


@functools.cache
def found(version: str) -> dict[str, bool]:
    """What each expression gives, from one process: an import of debugpy takes 0.3 s."""
    body = f"import json; print(json.dumps({{e: bool(eval(e)) for e in {EXPRESSIONS!r}}}))"
    return json.loads(inside(body, version=version))


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("version", PYTHONS)
def test_the_internal_is_as_it_was_read(expression, version):
    assert found(version)[expression]


def test_a_pydb_has_the_command_factory_of_the_protocol():
    assert inside("print(type(pydevd.PyDB().cmd_factory).__name__)") == "NetCommandFactoryJson"


def test_the_adapter_has_what_ours_sets_and_calls():
    inside(
        "from debugpy import adapter; from debugpy.adapter import clients, servers, sessions;"
        "adapter.access_token, servers.access_token, servers.listener, servers.Connection;"
        "clients.Client, sessions.report_sockets, sessions.wait_until_ended"
    )


def test_the_adapter_checks_both_tokens():
    source = inside(
        "from debugpy.adapter import clients, servers;"
        "print(inspect.getsource(servers.Connection.authenticate))"
    )
    assert '"debugServerAccessToken": access_token' in source
    assert 'auth["clientAccessToken"] != adapter.access_token' in source


def test_whoever_is_too_late_is_answered_that_they_are_not_authenticated():
    processor = "_pydevd_bundle.pydevd_process_net_command_json"
    body = f"print(inspect.getsource(__import__({processor!r}, fromlist=['_'])))"
    assert 'message="Client not authenticated."' in inside(body)
