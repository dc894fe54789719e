#!/bin/sh
# Runs nvcc and fails when its assembler spilled registers to memory, serialised wgmma (C7510, C7515,
# C7517) or ignored setmaxnreg (C7508): each makes a kernel slow without a word.
report=$("$@" 2>&1)
status=$?
printf '%s\n' "$report" | grep -v '^ptxas info\|^ *[0-9]* bytes stack frame\|^$' >&2
[ $status -eq 0 ] || exit $status
if printf '%s\n' "$report" | grep -q 'C7508\|C751[057]\|[1-9][0-9]* bytes spill'; then
    printf '%s\n' "$report" | grep -B2 'C7508\|C751[057]\|[1-9][0-9]* bytes spill' >&2
    echo "A kernel spills registers or lost its asynchronous instructions (see above)." >&2
    exit 1
fi
