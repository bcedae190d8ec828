"""The contract against a model of it in Python: whatever anybody calls in whatever order."""

from __future__ import annotations

import pytest

pytest.importorskip("web3", reason="needs the optional group identity")

from eth.vm.spoof import SpoofTransaction  # noqa: E402
from hypothesis import settings, strategies  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from web3 import Web3  # noqa: E402

from fedmrg_core.identity import embedded  # noqa: E402
from fedmrg_core.identity.admission import REFUSALS  # noqa: E402
from fedmrg_core.identity.contract import COMPILED, SOURCE, compiled_now, contract  # noqa: E402
from fedmrg_core.identity.registry import Identity, Run  # noqa: E402

ABI = Web3().eth.contract(abi=contract().abi)
COORDINATOR, *OWNERS = (bytes([number]) * 20 for number in range(1, 5))
DIGEST, OTHER = b"\x11" * 32, b"\x22" * 32


class World:
    """One contract on an EVM without blocks and signatures, which take most of the time elsewhere."""

    def __init__(self, bytecode: str = contract().bytecode) -> None:
        accounts = [Web3.to_hex(account) for account in (COORDINATOR, *OWNERS)]
        self.vm = embedded._tester(accounts).backend.chain.get_vm()
        self.address = self.send(COORDINATOR, b"", Web3.to_bytes(hexstr=bytecode)).msg.storage_address

    def send(self, sender: bytes, to: bytes, data: bytes, value: int = 0):
        state = self.vm.state
        unsigned = self.vm.create_unsigned_transaction(
            nonce=state.get_nonce(sender), gas_price=2 * 10**9, gas=4_000_000, to=to, value=value, data=data
        )
        return state.apply_transaction(SpoofTransaction(unsigned, from_=sender))

    def call(self, sender: bytes, name: str, *arguments: object, value: int = 0) -> bool:
        """Whether the contract has done it."""
        data = Web3.to_bytes(hexstr=ABI.encode_abi(name, args=list(arguments)))
        return not self.send(sender, self.address, data, value).is_error

    def read(self, name: str, *arguments: object):
        data = Web3.to_bytes(hexstr=ABI.encode_abi(name, args=list(arguments)))
        snapshot = self.vm.state.snapshot()
        output = self.send(COORDINATOR, self.address, data).output
        self.vm.state.revert(snapshot)
        types = [item for item in ABI.abi if item.get("name") == name][0]["outputs"]
        return Web3().codec.decode([_type(item) for item in types], output)[0]

    @property
    def held(self) -> int:
        return self.vm.state.get_balance(self.address)


def _type(item: dict) -> str:
    return f"({','.join(map(_type, item['components']))})" if item["type"] == "tuple" else item["type"]


def test_what_is_deployed_is_what_the_source_compiles_to():
    assert compiled_now(SOURCE) == contract(), (
        f"{SOURCE.name} was changed: write {COMPILED.name} anew, `write_compiled`"
    )


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Machine(RuleBasedStateMachine):
    """One run, three owners, few keys: so that calls meet one another."""

    identities = Bundle("identities")
    weights_drawn = strategies.integers(0, 9)
    senders = strategies.sampled_from((COORDINATOR, *OWNERS))
    keys = strategies.integers(1, 9).map(key)

    @initialize(target=identities, pot=strategies.integers(0, 20))
    def begin(self, pot):
        self.world = World()
        self.owners: dict[int, bytes] = {}
        self.active: set[int] = set()
        self.key_of: dict[bytes, int] = {}
        self.commits: dict[tuple[int, int], bytes] = {}
        self.weights: dict[int, int] = {}
        self.round, self.open, self.finished, self.pot, self.paid, self.given = 0, False, False, pot, 0, pot
        assert self.world.call(COORDINATOR, "open_run", DIGEST, value=pot)
        self.run = self.world.read("run_of", Web3.to_checksum_address(COORDINATOR), DIGEST)
        assert not self.world.call(COORDINATOR, "open_run", DIGEST)
        self.open_round(COORDINATOR, 0)
        return multiple(*(self.register(owner, key(number)) for number, owner in enumerate(OWNERS, start=1)))

    @rule(target=identities, sender=senders, key=keys)
    def register_anybody(self, sender, key):
        return self.register(sender, key)

    def register(self, sender, key):
        new = key not in self.key_of
        assert self.world.call(sender, "register", key, DIGEST, DIGEST) == new
        if new:
            number = len(self.owners) + 1
            self.owners[number], self.key_of[key] = sender, number
            self.active.add(number)
        return self.key_of[key]

    @rule(sender=senders, number=identities, key=keys)
    def rotate_anybody(self, sender, number, key):
        self.rotate(sender, number, key)

    def rotate(self, sender, number, key):
        allowed = self.mine(sender, number) and key not in self.key_of
        assert self.world.call(sender, "rotate", number, key) == allowed
        if allowed:
            self.key_of[key] = number

    @precondition(lambda self: self.active)
    @rule(data=strategies.data(), new=strategies.integers(10, 99).map(key))
    def rotate_own(self, data, new):
        number = data.draw(strategies.sampled_from(sorted(self.active)))
        self.rotate(self.owners[number], number, new)

    @rule(sender=senders, number=identities)
    def revoke(self, sender, number):
        allowed = self.mine(sender, number)
        assert self.world.call(sender, "revoke", number) == allowed
        if allowed:
            self.active.remove(number)

    @rule(sender=senders, skip=strategies.integers(0, 2))
    def open_any(self, sender, skip):
        self.open_round(sender, skip)

    @rule()
    def open_next(self):
        self.open_round(COORDINATOR, 0)

    def open_round(self, sender, skip):
        allowed = sender == COORDINATOR and not self.open and not self.finished and skip == 0
        assert self.world.call(sender, "open_round", self.run, self.round + 1 + skip, DIGEST) == allowed
        if allowed:
            self.round, self.open = self.round + 1, True

    @rule(number=identities, digest=strategies.sampled_from((DIGEST, OTHER)), back=strategies.integers(0, 1))
    def commit_own(self, number, digest, back):
        self.commit(self.owners[number], number, digest, back)

    @precondition(lambda self: self.open and self.missing())
    @rule(data=strategies.data())
    def commit_right(self, data):
        number = data.draw(strategies.sampled_from(self.missing()))
        self.commit(self.owners[number], number, DIGEST, 0)

    @rule(sender=senders, number=identities)
    def commit_of_anybody(self, sender, number):
        self.commit(sender, number, DIGEST, 0)

    def commit(self, sender, number, digest, back):
        place = (self.round - back, number)
        allowed = self.mine(sender, number) and self.open and back == 0 and place not in self.commits
        assert self.world.call(sender, "commit", self.run, max(0, self.round - back), number, digest) == allowed
        if allowed:
            self.commits[place] = digest

    @precondition(lambda self: self.open)
    @rule(
        sender=senders,
        weights=strategies.lists(strategies.tuples(strategies.integers(1, 4), weights_drawn), max_size=3),
    )
    def close_any(self, sender, weights):
        self.close(sender, weights)

    @precondition(lambda self: self.open)
    @rule(data=strategies.data())
    def close_own(self, data):
        self.close_right(data)

    def close_right(self, data):
        committed = sorted(number for place, number in self.commits if place == self.round)
        self.close(COORDINATOR, [(number, data.draw(self.weights_drawn)) for number in committed])

    @precondition(lambda self: self.open)
    @rule(data=strategies.data())
    def whole_round(self, data):
        for number in self.missing():
            self.commit(self.owners[number], number, OTHER, 0)
        self.close_right(data)

    @precondition(lambda self: self.open and any(place == self.round for place, _ in self.commits))
    @rule()
    def close_with_one_twice(self):
        number = next(number for place, number in self.commits if place == self.round)
        self.close(COORDINATOR, [(number, 1), (number, 1)])

    def close(self, sender, weights):
        numbers = [number for number, _ in weights]
        known = all((self.round, number) in self.commits for number in numbers) and len({*numbers}) == len(numbers)
        allowed = sender == COORDINATOR and known
        arguments = (self.run, self.round, numbers, [weight for _, weight in weights], DIGEST)
        assert self.world.call(sender, "close_round", *arguments) == allowed
        if allowed:
            self.open = False
            for number, weight in weights:
                self.weights[number] = self.weights.get(number, 0) + weight

    @rule(sender=senders, amount=strategies.integers(1, 20))
    def fund(self, sender, amount):
        assert self.world.call(sender, "fund", self.run, value=amount) == (not self.finished)
        if not self.finished:
            self.pot, self.given = self.pot + amount, self.given + amount

    @precondition(lambda self: self.round > 2)
    @rule(sender=senders)
    def finish(self, sender):
        allowed = sender == COORDINATOR and not self.open and not self.finished
        assert self.world.call(sender, "finish_run", self.run, self.round) == allowed
        self.finished = self.finished or allowed

    @rule(sender=senders, number=identities)
    def withdraw_anybody(self, sender, number):
        self.withdraw(sender, number)

    def withdraw(self, sender, number):
        weight = self.weights.get(number, 0)
        allowed = sender == self.owners[number] and self.finished and weight > 0
        due = self.pot * weight // sum(self.weights.values()) if allowed else 0
        assert self.world.read("due", self.run, number) == due or not allowed
        assert self.world.call(sender, "withdraw", self.run, number) == allowed
        if allowed:
            self.weights[number] = 0
            self.pot, self.paid = self.pot - due, self.paid + due

    @rule(sender=senders)
    def reclaim(self, sender):
        allowed = sender == COORDINATOR and self.finished and not sum(self.weights.values()) and self.pot > 0
        assert self.world.call(sender, "reclaim", self.run) == allowed
        if allowed:
            self.pot, self.paid = 0, self.paid + self.pot

    def missing(self) -> list[int]:
        """Who may still commit in this round."""
        return sorted(number for number in self.active if (self.round, number) not in self.commits)

    def mine(self, sender: bytes, number: int) -> bool:
        return self.owners[number] == sender and number in self.active

    @invariant()
    def the_pot_is_there_and_no_more_is_paid(self):
        if not hasattr(self, "world"):
            return
        assert self.world.held == self.pot == self.given - self.paid >= 0

    def teardown(self):
        """Whatever came before: what the chain says is the model, and once all have withdrawn nothing is left."""
        if not hasattr(self, "world"):
            return
        run = Run(*self.world.read("runs", self.run))
        assert (run.round, run.open, run.finished, run.pot) == (self.round, self.open, self.finished, self.pot)
        for number, owner in self.owners.items():
            identity = Identity(number, *self.world.read("identities", number))
            assert Web3.to_bytes(hexstr=identity.owner) == owner and identity.active == (number in self.active)
            assert self.key_of[identity.public_key] == number
        for (number, identity), digest in self.commits.items():
            assert self.world.read("commitment", self.run, number, identity) == digest
        if self.open:
            self.close(COORDINATOR, [])
        if not self.finished:
            assert self.world.call(COORDINATOR, "finish_run", self.run, self.round)
            self.finished = True
        if sum(self.weights.values()):
            for number, owner in self.owners.items():
                self.withdraw(OWNERS[0] if owner != OWNERS[0] else OWNERS[1], number)
                self.withdraw(owner, number)
                self.withdraw(owner, number)
        self.reclaim(OWNERS[0])
        self.reclaim(COORDINATOR)
        assert self.world.held == 0


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestContract = Machine.TestCase


def test_a_pot_that_does_not_divide_is_paid_to_the_last_wei():
    world = World()
    assert world.call(COORDINATOR, "open_run", DIGEST, value=1)
    run = world.read("run_of", Web3.to_checksum_address(COORDINATOR), DIGEST)
    for number, owner in enumerate(OWNERS, start=1):
        assert world.call(owner, "register", key(number), DIGEST, DIGEST)
    assert world.call(COORDINATOR, "open_round", run, 1, DIGEST)
    for number, owner in enumerate(OWNERS, start=1):
        assert world.call(owner, "commit", run, 1, number, DIGEST)
    assert world.call(COORDINATOR, "close_round", run, 1, [1, 2, 3], [1, 1, 1], OTHER)
    assert not world.call(OWNERS[0], "withdraw", run, 1)  # the run is not over
    assert not world.call(COORDINATOR, "open_round", run, 2, DIGEST)  # not from the model that came out
    assert world.call(COORDINATOR, "finish_run", run, 1)
    for number, owner in enumerate(OWNERS, start=1):
        assert world.call(owner, "withdraw", run, number)
    assert world.held == 0


def test_a_digest_is_sealed_once_and_by_the_coordinator():
    world = World()
    assert world.call(COORDINATOR, "open_run", DIGEST)
    run = world.read("run_of", Web3.to_checksum_address(COORDINATOR), DIGEST)
    assert not world.call(COORDINATOR, "seal", run, DIGEST)  # not over
    assert world.call(COORDINATOR, "finish_run", run, 0)
    assert not world.call(OWNERS[0], "seal", run, DIGEST)
    assert world.call(COORDINATOR, "seal", run, DIGEST)
    assert not world.call(COORDINATOR, "seal", run, OTHER)


def test_the_page_lists_every_code_with_its_meaning(repository):
    page = (repository / "docs" / "identity.md").read_text(encoding="utf-8")
    assert all(f"| `{code}` | {meaning} |" in page for code, meaning in REFUSALS.items())
