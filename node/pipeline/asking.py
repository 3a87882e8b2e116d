"""What has been asked of archives about one study, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from config.settings import CompletenessSettings
from node.pipeline.archives import Told
from node.pipeline.completeness import ArchiveReading, Evidence, ask_after_s, is_answer_due


@dataclass(slots=True, kw_only=True)
class Asking:
    """Questions and answers about one study. Times in seconds, by one clock that the caller keeps."""

    asked: int = 0
    _asked_at_s: float = 0.0  # the last question
    _asked_of: float = 0.0  # the last image that had come by then, by when it came
    _ended_at_s: float = 0.0  # when it was answered, or given up
    _failed: bool = False  # it had no answer
    _told: Told[int] | None = None  # the last answer
    _told_since_s: float = 0.0  # when the first of equal answers had come
    _told_at_s: float = 0.0  # when the last of them was asked for
    _told_of: float = 0.0  # the last image that had come by then

    def begin(self, now_s: float, last_received_at: float) -> None:
        """A question goes out."""
        self.asked += 1
        self._asked_at_s, self._asked_of = now_s, last_received_at

    def end(self, told: Told[int] | None, now_s: float) -> None:
        """It was answered, or not. Without an answer the last one stands."""
        self._ended_at_s, self._failed = now_s, told is None
        if told is None:
            return
        if told != self._told:
            self._told_since_s = now_s
        self._told, self._told_at_s, self._told_of = told, self._asked_at_s, self._asked_of

    def reading(self, last_received_at: float) -> ArchiveReading | None:
        """What an archive said last, now that the last image is the one that came at that time."""
        if self._told is None:
            return None
        return ArchiveReading(
            archive=self._told.archive,
            images=self._told.stated,
            # From answer to question: when in between a slow archive counted is not known.
            steady_s=max(0.0, self._told_at_s - self._told_since_s),
            after_last_image=self._told_of == last_received_at,
        )

    def is_due(self, evidence: Evidence, rules: CompletenessSettings, now_s: float) -> bool:
        """Whether to ask now. Not while images come one by one: each would be asked about."""
        if evidence.silent_s < rules.confirm_s / 2:
            return False
        pause_s = ask_after_s(evidence, rules, asked=self.asked, failed=self._failed)
        return self.asked == 0 or now_s - self._ended_at_s >= pause_s

    def is_waited_for(self, evidence: Evidence, rules: CompletenessSettings) -> bool:
        """Whether the study waits for an answer: for the first, or for one that confirms the last."""
        if self._told is None and not self._failed:
            return True
        return not self._failed and is_answer_due(evidence, rules)
