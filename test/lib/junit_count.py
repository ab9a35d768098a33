#!/usr/bin/python3
"""junit_count.py FILE...: prints 'passed failed skipped' summed over JUnit files (ctest's and pytest's), and the names
of the failed ones on stderr. A file that is missing or can't be read counts as one failure."""

import sys
import xml.etree.ElementTree as ElementTree


def main(paths):
    passed = failed = skipped = 0
    for path in paths:
        try:
            cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            print(f"    FAILED {path}: {error}", file=sys.stderr)
            failed += 1
            continue
        for case in cases:
            if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
                failed += 1
                print(f"    FAILED {case.get('classname', '')} {case.get('name')}", file=sys.stderr)
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                skipped += 1
            else:
                passed += 1
    print(passed, failed, skipped)


main(sys.argv[1:])
