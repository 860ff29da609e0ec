"""What sits dormant in every Python process of a job and lets a debugger in when asked.

Standard library only, Python 3.10 on. It costs one idle thread: no trace function, no monitoring
events, and debugpy is not imported before the first `attach`.

Every Python process of a job pays for what is imported when it starts: that is `arm` and what it
dials with, and nothing dear; `dataclasses`, `typing` or `json` alone would be half as much again.
The rest is imported when it is first asked for, on whatever thread that is, and always in the form
`from rdev.hook.module import name`: the other forms look up `rdev` itself, which by then may be a
package of the user's that the program has not asked for. Type checkers know TYPE_CHECKING wherever
it comes from.
"""

import os

PLANT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plant")
"""The folder that the agent puts first on a job's PYTHONPATH."""
