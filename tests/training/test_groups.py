"""Tests of `skylink.training.groups`: a group equals whole prompts, in value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lvlm_helpers import FAMILIES, showing_of
from skylink.lvlm.backbone import Encoded
from skylink.lvlm.load import load_backbone
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.random_checkpoint import write_random_checkpoint
from skylink.prompt import TEMPLATES
from skylink.training.config import Tune
from skylink.training.groups import group_states, usable, whole_states
from skylink.training.model import Student


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, once: Any) -> Any:
    """The folder of each family's random checkpoint."""
    name = request.param
    return once(f"checkpoint-{name}", lambda place: write_random_checkpoint(place, name) and None)


def student_and_prompts(
    family: Any, *, template: str = "pointwise-v1", **choices: Any
) -> tuple[Student, list[Encoded]]:
    backbone = load_backbone(str(family), LvlmOptions(visual_tokens=16, device="cpu"))
    how = TEMPLATES[template]
    student = Student(backbone, how, Tune(r=4, dropout=0.0), **choices)
    with torch.no_grad():  # or the gradients of one half of LoRA are zero
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.05)
    showing = showing_of()
    photo = usable(backbone.look(showing.photo))
    prompts = [
        backbone.encode(how.build(showing.photo_facts, [facts]), photo, [usable(backbone.look(p))])
        for facts, p in zip(showing.candidate_facts, showing.candidates, strict=True)
    ]
    return student, prompts


def gradients(student: Student, states: torch.Tensor) -> dict[str, torch.Tensor]:
    student.head(states).log_softmax(0)[1].neg().backward()  # type: ignore[no-untyped-call]
    found = {}
    for name, parameter in student.named_parameters():
        if name != "head.bias":  # no loss of a list depends on it
            assert parameter.grad is not None
            found[name] = parameter.grad.clone()
        parameter.grad = None
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_run_again_in_the_backward_pass_only_if_asked_to(
    checkpoint: Any, checkpointing: bool
) -> None:
    student, prompts = student_and_prompts(checkpoint, gradient_checkpointing=checkpointing)
    body = student.backbone.inner.text_model
    runs = []
    body.layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    with student.training((0,)):
        gradients(student, group_states(student.backbone, prompts))
    assert len(runs) == (2 if checkpointing else 1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_scores_and_gradients_are_those_of_whole_prompts(family: Any, checkpointing: bool) -> None:
    student, prompts = student_and_prompts(family, gradient_checkpointing=checkpointing)
    with student.training((0,)):
        group, whole = (f(student.backbone, prompts) for f in (group_states, whole_states))
        torch.testing.assert_close(group.detach(), whole.detach(), atol=2e-5, rtol=1e-5)
        fast, plain = gradients(student, group), gradients(student, whole)
    assert any("lora" in name for name in fast)
    for name, gradient in plain.items():
        assert float(gradient.abs().max()) > 0, name
        difference = (fast[name] - gradient).norm() / gradient.norm()
        assert float(difference) < 1e-4, name


def test_the_short_template_too(family: Any) -> None:
    student, prompts = student_and_prompts(family, template="pointwise-short-v1")
    with torch.no_grad():
        group, whole = (f(student.backbone, prompts) for f in (group_states, whole_states))
    torch.testing.assert_close(group, whole, atol=2e-5, rtol=1e-5)


def test_one_candidate_and_the_order_of_candidates(checkpoint: Any) -> None:
    student, prompts = student_and_prompts(checkpoint)
    with torch.no_grad():
        together = group_states(student.backbone, prompts)
        alone = group_states(student.backbone, prompts[2:3])
        turned = group_states(student.backbone, prompts[::-1])
    torch.testing.assert_close(alone[0], together[2], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(turned.flip(0), together, atol=2e-5, rtol=1e-5)


def test_bfloat16_is_near(checkpoint: Any) -> None:
    student, prompts = student_and_prompts(checkpoint)
    with torch.no_grad():
        exact = student.scores(prompts)
        student.precision = "bf16"
        near = student.scores(prompts)
    assert near.dtype == torch.float32
    assert 0 < float((near - exact).abs().max()) < 0.2 * float(exact.std())


def test_a_frozen_model_gives_no_gradient_and_its_head_does(checkpoint: Any) -> None:
    backbone = load_backbone(str(checkpoint), LvlmOptions(visual_tokens=16, device="cpu"))
    student = Student(backbone, TEMPLATES["pointwise-v1"], Tune(how="head"))
    _, prompts = student_and_prompts(checkpoint)
    assert not student.states(prompts).requires_grad
    assert student.scores(prompts).requires_grad
    assert [name for name, _ in student.named_parameters()] == ["head.weight", "head.bias"]
