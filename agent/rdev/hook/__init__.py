"""What sits dormant in every Python process of a job and lets a debugger in when asked.

Standard library only, Python 3.10 on. It costs one idle thread: no trace function, no monitoring
events, and debugpy is not imported before the first `attach`.

All of it is imported when a process starts, for later the name `rdev` may mean something else; so
every Python process of a job pays for what is imported here, and nothing dear is: `dataclasses`
and `typing` alone would be 10 ms. Type checkers know TYPE_CHECKING wherever it comes from.
"""

import os

PLANT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plant")
"""The folder that the agent puts first on a job's PYTHONPATH."""
