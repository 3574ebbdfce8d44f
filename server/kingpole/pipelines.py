"""Which models pipelines ask: the order in which models are loaded, and what a change of one concerns.

Pure: knows what was found, and neither the core nor the life of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kingpole.repository import Artifact, Broken

Found = Sequence[Artifact | Broken]


def asked_by(found: Found) -> set[str]:
    """The models that the steps of what was found of a model ask; none for what is no pipeline."""
    return {step.model for each in found if isinstance(each, Artifact) for step in each.configuration.steps}


def in_rounds(found: Mapping[str, Found]) -> list[list[str]]:
    """Part models into rounds, in which each comes after those of them that it asks.

    Those that ask each other in a circle come together in the last; what is served of them says so.
    """
    waiting = {name: (asked_by(entries) & found.keys()) - {name} for name, entries in found.items()}
    rounds = []
    while waiting:
        free = sorted(name for name, asked in waiting.items() if not asked & waiting.keys())
        rounds.append(free or sorted(waiting))
        for name in rounds[-1]:
            del waiting[name]
    return rounds


def concerned(pipelines: Mapping[str, Found], changed: Iterable[str]) -> list[str]:
    """The pipelines that ask one of these models, also through others, each after those that it asks."""
    changed = set(changed)
    touched = set(changed)
    names: list[str] = []
    for name in (name for each in in_rounds(pipelines) for name in each):
        if name not in changed and asked_by(pipelines[name]) & touched:
            touched.add(name)
            names.append(name)
    return names
