# SPDX-License-Identifier: Apache-2.0
"""A run's page: its plots and what is said of them, written into the run's folder."""

from __future__ import annotations

from pathlib import Path

from bench.report import figures, files, sections
from bench.report.document import Document
from bench.report.evidence import Evidence
from bench.report.headline import headline
from bench.runfiles import require_plain
from bench.runs import RunReader
from bench.sentences import facts, sentences

PAGE = "report.html"


def make(run: RunReader, folder: Path | None = None) -> Path:
    """Write report.html and plots/ into a folder, the run's own unless named; return the page.

    Raises BenchError for a damaged run, and for a folder that cannot be written to.
    """
    require_plain(run.path)
    return files.write(folder or run.path, PAGE, document(Evidence.of(run)))


def document(evidence: Evidence) -> Document:
    """Return what a run's page consists of."""
    meta, comparison = evidence.run.meta, evidence.comparison
    return Document(
        title=f"Run {evidence.run.run_id}",
        subtitle=sections.subtitle(evidence),
        verdict=[*headline(meta, comparison), *sentences(comparison), *facts(meta, comparison)],
        sections=[
            section
            for section in (*figures.sections(evidence), *sections.sections(evidence))
            if section.items
        ],
    )
