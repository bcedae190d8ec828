# pragma version 0.4.3
"""
@title Identities of models, and what each of them contributed to a federation.
@notice A hospital registers an identity and commits the digest of each signed update, once a round. The coordinator of
        a run says which model a round starts from and which updates were used, with what weight. A pot is shared in
        proportion to the weights of the whole run, and every owner withdraws its own part.
"""

MOST: constant(uint256) = 256  # members of a round

struct Identity:
    owner: address
    public_key: bytes32  # Ed25519
    metadata: bytes32  # SHA-256 of what the owner says of it
    model: bytes32  # digest of the model that it starts from
    active: bool

struct Run:
    coordinator: address
    round: uint256  # the last that was opened, from 1
    open: bool  # whether that round takes commitments
    finished: bool
    pot: uint256  # wei, not yet withdrawn
    weight: uint256  # of all contributions not yet paid for
    chosen: uint256  # the round whose model was chosen, once finished
    evidence: bytes32  # SHA-256 of the evidence, once sealed

event Deployed:
    deployer: indexed(address)

event Registered:
    identity: indexed(uint256)
    owner: indexed(address)
    public_key: bytes32
    metadata: bytes32
    model: bytes32

event KeyRotated:
    identity: indexed(uint256)
    public_key: bytes32

event Revoked:
    identity: indexed(uint256)

event RunOpened:
    run: indexed(bytes32)
    coordinator: indexed(address)

event Funded:
    run: indexed(bytes32)
    giver: indexed(address)
    amount: uint256

event RoundOpened:
    run: indexed(bytes32)
    round: indexed(uint256)
    base: bytes32

event Committed:
    run: indexed(bytes32)
    round: indexed(uint256)
    identity: indexed(uint256)
    digest: bytes32

event Accepted:
    run: indexed(bytes32)
    round: indexed(uint256)
    identity: indexed(uint256)
    weight: uint256

event RoundClosed:
    run: indexed(bytes32)
    round: indexed(uint256)
    model: bytes32

event RunFinished:
    run: indexed(bytes32)
    round: uint256
    model: bytes32

event Sealed:
    run: indexed(bytes32)
    evidence: bytes32

event Withdrawn:
    run: indexed(bytes32)
    identity: indexed(uint256)
    owner: indexed(address)
    amount: uint256

count: public(uint256)
identities: public(HashMap[uint256, Identity])
identity_of: public(HashMap[bytes32, uint256])  # by every key it ever had
runs: public(HashMap[bytes32, Run])
model: public(HashMap[bytes32, HashMap[uint256, bytes32]])  # run, the round after which it is; 0: the first
commitment: public(HashMap[bytes32, HashMap[uint256, HashMap[uint256, bytes32]]])  # run, round, identity
accepted: HashMap[bytes32, HashMap[uint256, HashMap[uint256, bool]]]  # run, round, identity
weight: public(HashMap[bytes32, HashMap[uint256, uint256]])  # run, identity; not yet paid for


@deploy
def __init__():
    log Deployed(deployer=msg.sender)


# ---- identities ----


@external
def register(public_key: bytes32, metadata: bytes32, model: bytes32) -> uint256:
    """
    @notice Register an identity of the sender's; a key serves one identity, once.
    """
    self.count += 1
    self._take(public_key, self.count)
    self.identities[self.count] = Identity(
        owner=msg.sender, public_key=public_key, metadata=metadata, model=model, active=True
    )
    log Registered(
        identity=self.count, owner=msg.sender, public_key=public_key, metadata=metadata, model=model
    )
    return self.count


@external
def rotate(identity: uint256, public_key: bytes32):
    """
    @notice Sign with another key from now on.
    """
    self._check_owner(identity)
    self._take(public_key, identity)
    self.identities[identity].public_key = public_key
    log KeyRotated(identity=identity, public_key=public_key)


@external
def revoke(identity: uint256):
    """
    @notice End an identity for good; what it has earned stays its owner's.
    """
    self._check_owner(identity)
    self.identities[identity].active = False
    log Revoked(identity=identity)


@internal
def _take(public_key: bytes32, identity: uint256):
    assert public_key != empty(bytes32), "empty key"
    assert self.identity_of[public_key] == 0, "key taken"
    self.identity_of[public_key] = identity


@internal
@view
def _check_owner(identity: uint256):
    assert self.identities[identity].owner == msg.sender, "not the owner"
    assert self.identities[identity].active, "revoked"


# ---- runs and their rounds ----


@external
@pure
def run_of(coordinator: address, label: bytes32) -> bytes32:
    """
    @notice The name of a run; nobody else can take it.
    """
    return keccak256(abi_encode(coordinator, label))


@external
@payable
def open_run(label: bytes32):
    """
    @notice Begin a run with the sender as its coordinator; what is sent along is in its pot.
    """
    run: bytes32 = keccak256(abi_encode(msg.sender, label))
    assert self.runs[run].coordinator == empty(address), "run exists"
    self.runs[run].coordinator = msg.sender
    log RunOpened(run=run, coordinator=msg.sender)
    self._fund(run)


@external
@payable
def fund(run: bytes32):
    """
    @notice Put more into the pot of a run that is not over.
    """
    assert self.runs[run].coordinator != empty(address), "no such run"
    assert not self.runs[run].finished, "run finished"
    self._fund(run)


@internal
@payable
def _fund(run: bytes32):
    if msg.value > 0:
        self.runs[run].pot += msg.value
        log Funded(run=run, giver=msg.sender, amount=msg.value)


@external
def open_round(run: bytes32, round: uint256, base: bytes32):
    """
    @notice Say which model the next round starts from: any before the first, then that which the last one made.
    """
    self._check_coordinator(run)
    assert not self.runs[run].finished, "run finished"
    assert not self.runs[run].open, "round open"
    assert round == self.runs[run].round + 1, "wrong round"
    assert base != empty(bytes32), "empty digest"
    assert round == 1 or base == self.model[run][round - 1], "another model"
    self.runs[run].round = round
    self.runs[run].open = True
    self.model[run][round - 1] = base
    log RoundOpened(run=run, round=round, base=base)


@external
def commit(run: bytes32, round: uint256, identity: uint256, digest: bytes32):
    """
    @notice Commit to a signed update, once for a run, a round and an identity.
    """
    self._check_owner(identity)
    assert self.runs[run].open and self.runs[run].round == round, "round not open"
    assert digest != empty(bytes32), "empty digest"
    assert self.commitment[run][round][identity] == empty(bytes32), "committed before"
    self.commitment[run][round][identity] = digest
    log Committed(run=run, round=round, identity=identity, digest=digest)


@external
def close_round(
    run: bytes32,
    round: uint256,
    identities: DynArray[uint256, MOST],
    weights: DynArray[uint256, MOST],
    model: bytes32,
):
    """
    @notice End a round: whose updates were used, with what weight, and the digest of the model that came out.
    """
    self._check_coordinator(run)
    assert self.runs[run].open and self.runs[run].round == round, "round not open"
    assert len(identities) == len(weights), "lengths differ"
    assert model != empty(bytes32), "empty digest"
    self.runs[run].open = False
    for k: uint256 in range(len(identities), bound=MOST):
        identity: uint256 = identities[k]
        assert self.commitment[run][round][identity] != empty(bytes32), "not committed"
        assert not self.accepted[run][round][identity], "accepted before"
        assert weights[k] < 2**64, "weight too large"
        self.accepted[run][round][identity] = True
        self.weight[run][identity] += weights[k]
        self.runs[run].weight += weights[k]
        log Accepted(run=run, round=round, identity=identity, weight=weights[k])
    self.model[run][round] = model
    log RoundClosed(run=run, round=round, model=model)


@external
def finish_run(run: bytes32, round: uint256):
    """
    @notice End a run with the model after the chosen round; from now on its pot is paid.
    """
    self._check_coordinator(run)
    assert not self.runs[run].open, "round open"
    assert not self.runs[run].finished, "run finished"
    assert round <= self.runs[run].round, "wrong round"
    self.runs[run].finished = True
    self.runs[run].chosen = round
    log RunFinished(run=run, round=round, model=self.model[run][round])


@external
def seal(run: bytes32, evidence: bytes32):
    """
    @notice Keep the digest of the evidence of a run that is over, once.
    """
    self._check_coordinator(run)
    assert self.runs[run].finished, "run not finished"
    assert self.runs[run].evidence == empty(bytes32), "sealed before"
    assert evidence != empty(bytes32), "empty digest"
    self.runs[run].evidence = evidence
    log Sealed(run=run, evidence=evidence)


@internal
@view
def _check_coordinator(run: bytes32):
    assert self.runs[run].coordinator == msg.sender, "not the coordinator"


# ---- the incentive ----


@external
@view
def due(run: bytes32, identity: uint256) -> uint256:
    """
    @notice What an identity can withdraw now, in wei.
    """
    return self._due(run, identity)


@external
def withdraw(run: bytes32, identity: uint256):
    """
    @notice Pay an identity's part of the pot to its owner, revoked or not.
    """
    assert self.identities[identity].owner == msg.sender, "not the owner"
    assert self.runs[run].finished, "run not finished"
    assert self.weight[run][identity] > 0, "nothing due"
    amount: uint256 = self._due(run, identity)
    # Before the payment, so that a second call from within finds nothing. Weight and pot shrink together: what is
    # rounded away stays in the pot for those who come later, and the last one is paid all that is left.
    self.runs[run].weight -= self.weight[run][identity]
    self.weight[run][identity] = 0
    self._pay(run, identity, amount)


@external
def reclaim(run: bytes32):
    """
    @notice Give the pot of a run that ended without any contribution back to its coordinator.
    """
    self._check_coordinator(run)
    assert self.runs[run].finished, "run not finished"
    assert self.runs[run].weight == 0, "contributions exist"
    assert self.runs[run].pot > 0, "nothing due"
    self._pay(run, 0, self.runs[run].pot)


@internal
def _pay(run: bytes32, identity: uint256, amount: uint256):
    self.runs[run].pot -= amount
    log Withdrawn(run=run, identity=identity, owner=msg.sender, amount=amount)
    raw_call(msg.sender, b"", value=amount)


@internal
@view
def _due(run: bytes32, identity: uint256) -> uint256:
    if not self.runs[run].finished or self.weight[run][identity] == 0:
        return 0
    return self.runs[run].pot * self.weight[run][identity] // self.runs[run].weight
