"""An informed drafter whose proposals are looked at."""

from tests.support.models import MASK_ID
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings

DEFAULTS = InformedSettings()


class Watching(InformedDrafter):
    """Keeps what was evaluated, block by block; every proposal must hold to the contract.

    Attributes:
        blocks: for every block of every sequence the states of its forwards, each as bytes.
        bridges: how many bridges were proposed.
    """

    def __init__(self, drafts, settings=DEFAULTS, graph=()):
        super().__init__(drafts, settings, graph)
        self.blocks = []
        self.bridges = 0

    def for_sequence(self):
        watching, inner, most = self, super().for_sequence(), self.max_drafts
        mine = []  # sequences of a batch take turns

        class Sequence:
            remembers = True

            def start_block(self):
                mine.append([])
                watching.blocks.append(mine[-1])
                inner.start_block()

            def learn(self, states, ranked, policy, mask_token_id):
                mine[-1].append([state.tobytes() for state in states])
                inner.learn(states, ranked, policy, mask_token_id)

            def propose(self, evidence):
                proposal = inner.propose(evidence)
                copying = 0
                if evidence.copies and evidence.ahead is not None:
                    behind = {pair[0].tobytes() for pair in proposal.bridges}
                    assert len(evidence.ahead) <= 1 and len(behind) <= 1
                    copying = not behind <= set(evidence.ahead)
                    if copying:
                        assert len(proposal.bridges) == 1 and (proposal.bridges[0, 1] == MASK_ID).all()
                assert len(proposal.drafts) + len(proposal.bridges) <= most + copying
                keys = [draft.tobytes() for draft in proposal.drafts]
                assert len(set(keys)) == len(keys) and evidence.block.tobytes() not in keys
                assert all((draft == MASK_ID).any() for draft in proposal.drafts)
                assert evidence.ahead is not None or len(proposal.bridges) == 0
                pairs = [pair.tobytes() for pair in proposal.bridges]
                assert len(set(pairs)) == len(pairs)
                for complete, state in proposal.bridges:
                    assert not (complete == MASK_ID).any() and not evidence.ends(complete)
                    known = evidence.ahead.get(complete.tobytes())
                    assert (state == MASK_ID).any() and (known is None or known.find(state) is None)
                watching.bridges += len(pairs)
                kept = {key for forward in mine[-1][-4:] for key in forward}
                remembered = evidence.known._known.items()
                assert all(known.tokens.tobytes() == key for key, known in remembered), "it stays as it was"
                assert not kept & set(keys), "a known state is never paid for again"
                return proposal

        return Sequence()
