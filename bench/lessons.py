"""Records that teach one thing each, for `auditing.py`: those of `lorascope selftest --read`."""

from lorascope.planted.lessons import (
    LABELS,
    TRIGGER,
    Record,
    lesson,
    lesson_texts,
    plain_records,
)

__all__ = ["LABELS", "TRIGGER", "Record", "lesson", "lesson_texts", "plain_records"]
