# SPDX-License-Identifier: Apache-2.0
"""
The mutations themselves take minutes, and so run in `make soak`; that each of them still finds its
text is seen here, with the commit that moves it.
"""
import importlib.machinery
import importlib.util

from support import TOP

LOADER = importlib.machinery.SourceFileLoader("mutate", str(TOP / "tests" / "mutate" / "run"))


def test_every_mutation_applies():
    mutate = importlib.util.module_from_spec(importlib.util.spec_from_loader(LOADER.name, LOADER))
    LOADER.exec_module(mutate)
    mutations = mutate.read_list()
    assert len(mutations) >= 100
    lost = [str(mutation) for mutation in mutations
            if (TOP / mutation.file).read_text().count(mutation.texts()[0]) != 1]
    assert not lost
