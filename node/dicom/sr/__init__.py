"""The report as a Structured Report by TID 1500: its document, measurement groups, and SR classes."""
