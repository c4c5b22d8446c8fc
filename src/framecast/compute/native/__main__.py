"""``python -m framecast.compute.native`` compiles the native code now, and says whether it could."""

import sys

from framecast.compute.native.library import why_not

reason = why_not()
print(f"no native code: {reason}" if reason else "native code is ready", file=sys.stderr)
