"""The journey of a study: select, segment, score, report, deliver."""
