from __future__ import annotations

import subprocess
import sys


def test_a_goal_and_a_leaderboard_load_no_torch():
    code = "import sys, pipelab.teaching.design.leaderboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
