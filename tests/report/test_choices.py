"""Labels of configurations are overrides: pasted back, they give the same configuration."""

from __future__ import annotations

from made_runs import planned

from unipeft_run.report.differences import find_differences

MAM = ("task=sst2", "method=mam")
VARIANTS = (
    (),
    ("composition@ffn=add", "form@attn=memory_nomlp", "ffn.representation.layers=[0,1]"),
    ("ffn=null",),
    ("form@ffn=low_rank", "insertion@ffn=sequential", "ffn.bottleneck=3"),
    ("form@ffn=bottleneck", "ffn.form.activation=gelu", "attn.mlp_width=16", "ffn.scale=2"),
    ("ffn.composition.scale=3",),
    ("ffn.form.rank=7",),
)


def test_pasted_labels_give_the_same_runs() -> None:
    plans = [planned(*MAM, *variant) for variant in VARIANTS]
    labels = find_differences([plan.config.plain() for plan in plans])
    assert "form@ffn=low_rank insertion@ffn=sequential" in labels[3]
    pasted = [planned(*MAM, *label.split()).run_id for label in labels]
    assert pasted == [plan.run_id for plan in plans], labels
