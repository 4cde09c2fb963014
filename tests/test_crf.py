"""`crf` against all sequences of tags, one by one, and against CRFsuite."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_lib.crf import CRF

few = settings(max_examples=40, deadline=None)
small = given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.booleans())


def draw(seq_len, num_tags, seed, masked=False, batch=3, dtype=torch.float64):
    """A field with scores of its own, the network's scores, and lengths; all steps from and to tag 0 are open."""
    g = torch.Generator().manual_seed(seed)
    masks = {}
    if masked:
        masks["forbidden"] = torch.rand(num_tags, num_tags, generator=g) < 0.5
        masks["forbidden"][0], masks["forbidden"][:, 0] = False, False
        masks["forbidden_start"] = torch.rand(num_tags, generator=g) < 0.5
        masks["forbidden_start"][0] = False
    field = CRF(num_tags, **masks).to(dtype)
    with torch.no_grad():
        for p in field.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=dtype))
    scores = 2 * torch.randn(batch, seq_len, num_tags, generator=g, dtype=dtype)
    lengths = torch.randint(1, seq_len + 1, (batch,), generator=g)
    lengths[0] = seq_len
    return field, scores, lengths


def all_of_them(field, scores):
    """The score of each legal sequence of tags for one (seq_len, num_tags), added up in plain Python."""
    A, a, b, x = (p.tolist() for p in (field.transitions, field.start, field.end, scores))
    closed, not_first = field.forbidden.tolist(), field.forbidden_start.tolist()
    found = {}
    for y in itertools.product(range(field.num_tags), repeat=len(x)):
        steps = list(itertools.pairwise(y))
        if not_first[y[0]] or any(closed[i][j] for i, j in steps):
            continue
        found[y] = a[y[0]] + b[y[-1]] + sum(x[t][j] for t, j in enumerate(y)) + sum(A[i][j] for i, j in steps)
    return found


@few
@small
def test_probability_and_best_sequence_are_those_of_all_sequences(seq_len, num_tags, seed, masked):
    field, scores, lengths = draw(seq_len, num_tags, seed, masked)
    decoded, total = field.decode(scores, lengths), field.log_partition(scores, lengths)
    for k, n in enumerate(lengths.tolist()):
        found = all_of_them(field, scores[k, :n])
        ln_z = math.log(sum(map(math.exp, found.values())))
        assert total[k].item() == pytest.approx(ln_z, rel=1e-10, abs=1e-10)
        assert tuple(decoded[k, :n].tolist()) == max(found, key=found.get)
        assert (decoded[k, n:] == -1).all()
        one, chance = scores[k : k + 1, :n], 0.0
        for y, s in found.items():
            tags = torch.tensor([y])
            assert field.score(one, tags).item() == pytest.approx(s, rel=1e-10, abs=1e-10)
            chance += field.log_likelihood(one, tags).exp().item()
        assert chance == pytest.approx(1)


@few
@small
def test_the_gradient_of_ln_z_is_the_probability_of_each_tag_and_step(seq_len, num_tags, seed, masked):
    field, scores, lengths = draw(seq_len, num_tags, seed, masked)
    scores.requires_grad_()
    field.log_partition(scores, lengths).sum().backward()
    tag, step = torch.zeros_like(scores), torch.zeros_like(field.transitions)
    for k, n in enumerate(lengths.tolist()):
        found = all_of_them(field, scores[k, :n])
        z = sum(map(math.exp, found.values()))
        for y, s in found.items():
            for t, j in enumerate(y):
                tag[k, t, j] += math.exp(s) / z
            for i, j in itertools.pairwise(y):
                step[i, j] += math.exp(s) / z
    torch.testing.assert_close(scores.grad, tag, rtol=1e-9, atol=1e-12)
    by_step = torch.zeros_like(step) if seq_len == 1 else field.transitions.grad
    torch.testing.assert_close(by_step, step, rtol=1e-9, atol=1e-12)


@few
@small
def test_padding_makes_no_difference(seq_len, num_tags, seed, masked):
    field, scores, lengths = draw(seq_len, num_tags, seed, masked)
    tags = field.decode(scores, lengths, padding=0)
    other, wild = scores.clone(), tags.clone()
    for k, n in enumerate(lengths.tolist()):
        other[k, n:] = 1e6
        wild[k, n:] = 10**6
    assert torch.equal(field.log_likelihood(scores, tags, lengths), field.log_likelihood(other, wild, lengths))
    assert torch.equal(tags, field.decode(other, lengths, padding=0))
    for k, n in enumerate(lengths.tolist()):
        alone = field.log_likelihood(scores[k : k + 1, :n], tags[k : k + 1, :n])
        torch.testing.assert_close(
            alone[0], field.log_likelihood(scores, tags, lengths)[k], rtol=1e-12, atol=1e-12
        )
        assert torch.equal(field.decode(scores[k : k + 1, :n])[0], tags[k, :n])


def test_derivatives_are_those_of_differences():
    field, scores, lengths = draw(4, 3, 0, masked=True)
    tags = field.decode(scores, lengths, padding=0)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: field.log_likelihood(x, tags, lengths), scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_precisions_and_long_sequences(dtype):
    field, scores, _ = draw(500, 7, 0, masked=True, dtype=dtype)
    tags = field.decode(scores)
    assert field.log_likelihood(scores, tags).dtype == dtype
    twice, precise = CRF(7, field.forbidden, field.forbidden_start).double(), scores.double()
    twice.load_state_dict(field.state_dict())
    torch.testing.assert_close(
        field.log_likelihood(scores, tags).double(), twice.log_likelihood(precise, tags), rtol=1e-4, atol=1e-3
    )
    loss = -field.log_likelihood(scores, tags).mean()
    loss.backward()
    assert torch.isfinite(field.transitions.grad).all()
    assert (field.transitions.grad[field.forbidden] == 0).all()
    assert not (field.forbidden[tags[:, :-1], tags[:, 1:]]).any()


def test_no_step_scored_and_none_forbidden_is_a_softmax_at_each_step():
    scores = draw(6, 5, 0)[1]
    tags = torch.randint(0, 5, (3, 6))
    wanted = scores.log_softmax(-1).gather(2, tags[..., None]).sum((1, 2))
    field = CRF(5).double()
    torch.testing.assert_close(field.log_likelihood(scores, tags), wanted)
    assert torch.equal(field.decode(scores), scores.argmax(-1))


def test_the_masks_travel_with_the_weights():
    field = draw(3, 4, 1, masked=True)[0]
    other = CRF(4).double()
    other.load_state_dict(field.state_dict())
    scores = draw(9, 4, 2)[1]
    assert torch.equal(field.decode(scores), other.decode(scores))


def test_crfsuite_gives_the_same_tags(tmp_path):
    """CRFsuite learns a field from features; with its weights ours scores and decodes as it does."""
    pycrfsuite = pytest.importorskip("pycrfsuite")
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 6, (60, 8), generator=g)
    y = (x + x.roll(1, 1)) % 3  # a tag hangs on its neighbour, too
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c2": 0.1, "feature.possible_transitions": True})
    for row, tags in zip(x.tolist(), y.tolist(), strict=True):
        trainer.append([[f"x{k}"] for k in row], [f"t{k}" for k in tags])
    trainer.train(str(tmp_path / "model"))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(tmp_path / "model"))
    info = tagger.info()
    field, weight = CRF(3).double(), torch.zeros(6, 3, dtype=torch.float64)
    with torch.no_grad():
        for (i, j), w in info.transitions.items():
            field.transitions[int(i[1]), int(j[1])] = w
    for (feature, tag), w in info.state_features.items():
        weight[int(feature[1]), int(tag[1])] = w
    decoded = field.decode(weight[x])
    for k, row in enumerate(x.tolist()):
        theirs = tagger.tag([[f"x{j}"] for j in row])
        assert theirs == [f"t{j}" for j in decoded[k].tolist()]
        for tags in (decoded[k], y[k]):
            p = field.log_likelihood(weight[x[k : k + 1]], tags[None]).exp().item()
            # tagger.info() rounds the weights to six digits behind the point
            assert tagger.probability([f"t{j}" for j in tags.tolist()]) == pytest.approx(p, rel=1e-4)


yes = torch.zeros(3, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, x: CRF(0), ValueError, "num_tags must be at least 1, got 0"),
        (lambda f, x: CRF(2.0), TypeError, "num_tags must be an int, got 2.0"),
        (lambda f, x: CRF(3, yes.int()), TypeError, "forbidden must be a Tensor of torch.bool, got torch.int32"),
        (lambda f, x: CRF(3, yes.tolist()), TypeError, "forbidden must be a Tensor of torch.bool, got list"),
        (lambda f, x: CRF(3, yes[:2]), ValueError, r"forbidden must have the shape \(3, 3\), got \(2, 3\)"),
        (lambda f, x: CRF(3, yes, yes), ValueError, r"forbidden_start must have the shape \(3,\), got \(3, 3\)"),
        (lambda f, x: f.decode(x.tolist()), TypeError, "scores must be a Tensor, got list"),
        (lambda f, x: f.decode(x[0]), ValueError, r"scores must be \(batch, seq_len, 3\), .*, got \(4, 3\)"),
        (lambda f, x: f.decode(x[:, :0]), ValueError, r"scores must be .*, got \(2, 0, 3\)"),
        (lambda f, x: f.decode(x.double()), TypeError, "scores must be torch.float32 .*, got torch.float64"),
        (lambda f, x: f.decode(x, [4, 4]), TypeError, "lengths must be a Tensor of whole numbers, got list"),
        (lambda f, x: f.decode(x, torch.ones(2)), TypeError, "lengths must be .*, got torch.float32"),
        (lambda f, x: f.decode(x, torch.tensor([4, 0])), ValueError, r"lengths must be \(2,\), .*, got \[4, 0\]"),
        (lambda f, x: f.decode(x, torch.tensor([5, 4])), ValueError, r"lengths must be .*, got \[5, 4\]"),
        (lambda f, x: f.score(x, torch.zeros(2, 4)), TypeError, "tags must be a Tensor of torch.long, got .*32"),
        (lambda f, x: f.score(x, torch.zeros(2, 3).long()), ValueError, r"tags must be \(2, 4\) .*, got \(2, 3\)"),
        (lambda f, x: f.score(x, torch.full((2, 4), 3)), ValueError, "tags must be from 0 to 2, got 3 to 3"),
        (lambda f, x: f.score(x, torch.full((2, 4), -1)), ValueError, "tags must be from 0 to 2, got -1 to -1"),
        (lambda f, x: f.score(x, torch.full((2, 4), 1)), ValueError, "tags must take no forbidden step, got one"),
        (lambda f, x: f.score(x, torch.full((2, 4), 2)), ValueError, "tags must take no forbidden step, got one"),
    ],
)
def test_errors_say_what_must_be(call, error, message):
    forbidden, start = yes.clone(), torch.tensor([False, False, True])
    forbidden[1, 1] = True
    with pytest.raises(error, match=message):
        call(CRF(3, forbidden, start), torch.zeros(2, 4, 3))


def test_a_forbidden_step_behind_the_end_does_not_matter():
    forbidden = yes.clone()
    forbidden[1, 1] = True
    tags = torch.tensor([[0, 1, 1, 1]])
    assert torch.isfinite(CRF(3, forbidden).log_likelihood(torch.zeros(1, 4, 3), tags, torch.tensor([2])))
