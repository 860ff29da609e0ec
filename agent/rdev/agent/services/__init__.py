"""The agent's services: each converts messages, calls a manager, and raises `RdevError`."""

from typing import Any, TypeAlias

import grpc

# The stubs make the context generic in its messages; no service of ours looks at that.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
