"""What both ends of a connection agree on below the messages."""

from __future__ import annotations

# Key of the trailing metadata that carries an ErrorDetail; `-bin` is what makes gRPC carry bytes.
DETAIL_KEY = "rdev-error-bin"

# gRPC lets a call's trailing metadata grow to 8 KiB: an error's words, in bytes of UTF-8, are cut
# to fit beside one another. The status only repeats them, percent-encoded.
MAX_WORDS = 1500
MAX_STATUS = 300

# A data message carries at most 1 MiB of content; 4 MiB leaves room for long lists of entries.
MAX_MESSAGE = 4 << 20

# A dead peer behind a half-open link is noticed within 30 s; whoever pings much faster than that is
# not one of ours.
_PING_MS, _PONG_MS, _SHORTEST_PING_MS = 20_000, 10_000, 10_000

_BOTH = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_BOTH,
    ("grpc.http2.min_ping_interval_without_data_ms", _SHORTEST_PING_MS),
    ("grpc.so_reuseport", 0),
]

CLIENT_OPTIONS: list[tuple[str, int]] = [
    *_BOTH,
    ("grpc.keepalive_time_ms", _PING_MS),
    ("grpc.keepalive_timeout_ms", _PONG_MS),
    # grpc's own default waits a second before it dials a restarted agent again.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

# To another machine gRPC connects through a line that is opened for it, which may take as long as a
# login does; and it shall not close the connection when it is quiet, since another login would be
# needed. A dead link is the transport's to notice, and gRPC's while calls are under way.
_LOGIN_MS = 120_000
REMOTE_OPTIONS: list[tuple[str, int]] = [
    *(option for option in CLIENT_OPTIONS if option[0] != "grpc.min_reconnect_backoff_ms"),
    ("grpc.min_reconnect_backoff_ms", _LOGIN_MS),
    ("grpc.client_idle_timeout_ms", 0x7FFFFFFF),
]
