"""What tables call a run, and beside which numbers of a paper it may stand."""

import pytest

from configs.discriminative import cifar10 as discriminative
from configs.esp import cifar10 as esp
from configs.rat import cifar10 as rat
from configs.spider import cifar10 as spider
from configs.spider import imagenet
from robustjax.evaluate.labels import trained_by
from robustjax.io import results


@pytest.mark.parametrize(
    ("config", "name", "label"),
    [
        (spider.get_config(), "spider", "SPIDER (tau 8, xi 0.4)"),
        (spider.get_config("method=none,augment=pixmix"), "pixmix", "PixMix"),
        (spider.get_config("augment=augmix"), "augmix+spider", "AugMix + SPIDER (tau 8, xi 0.4)"),
        (spider.get_config("augment=augmix_nojsd,method=mixup"), "augmix_nojsd+mixup", "AugMix without JSD + Mixup (alpha 1, lam example)"),
        (esp.get_config("augment=augmix,method=none"), "augmix", "AugMix"),
        (esp.get_config("augment=augmix+deepaugment,method=none"), "augmix+deepaugment", "AugMix + DeepAugment"),
        (esp.get_config("augment=deepaugment_in_step,method=none"), "deepaugment_in_step", "DeepAugment in the step"),
        (rat.get_config(), "rat_2", "RAT 1st + 2nd (eta 0.2)"),
        (rat.get_config("order=0,awp=on,average=swa"), "trades_awp_swa", "TRADES + AWP + SWA"),
        (rat.get_config("method=madry,awp=on,threat=l2"), "madry_awp", "adversarial training + AWP"),
        (rat.get_config("method=released"), "rat_released", "RAT's released heuristic"),
        (discriminative.get_config(), "discriminative", "discriminative loss"),
        (discriminative.get_config("method=noisy"), "gaussian_noise", "gaussian_noise (std 0.06)"),
        (discriminative.get_config("weighting=paper"), "discriminative_otherwise", "discriminative loss, alpha 1.0, noisy 1.0"),
        (discriminative.get_config("perturb=spider"), "discriminative_otherwise", "discriminative loss with SPIDER (tau 8, xi 0.4)"),
        (
            discriminative.get_config("method=center"),
            "discriminative, alpha 1, beta 0, gamma_reg 0.001, noisy 0",
            "discriminative loss, alpha 1.0, noisy 0.0, beta 0.0",
        ),
        (discriminative.get_config("augment=augmix_nojsd"), "discriminative_otherwise", "discriminative loss with AugMix without JSD"),
        (discriminative.get_config("method=normal,perturb=spider"), "spider", "SPIDER (tau 8, xi 0.4)"),
    ],
)
def test_names_and_labels(config, name, label):
    # Kills: a stage, a weight or a perturbation that the label does not show; a paper's row beside another setting.
    assert trained_by(config.to_dict()) == (name, label)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [("", "stddev", 0.5), ("", "delta_d", 1.0), ("method=stability", "stddev", 0.5), ("method=stability", "weight", 2.0)],
)
def test_another_setting_is_named_and_has_no_row_in_the_papers_table(text, key, value):
    config = discriminative.get_config(text)
    config.objective[key] = value
    name, label = trained_by(config.to_dict())
    assert name.endswith("_otherwise") and label.endswith(f", {key.replace('_', ' ')} {value}")


@pytest.mark.parametrize(
    ("text", "section", "key", "value", "shown"),
    [
        ("awp=on", "awp", "gamma", 0.05, "RAT 1st + 2nd (eta 0.2) + AWP (gamma 0.05)"),
        ("awp=on", "awp", "loss", "full", "RAT 1st + 2nd (eta 0.2) + AWP (loss full)"),
        ("order=0", "objective", "threat", "linf:4/255", "TRADES, threat linf:4/255, step size 0.007843"),
        ("order=0", "objective", "step_size", 0.01, "TRADES, threat linf:8/255, step size 0.01"),
        ("method=released", "objective", "sigma", 0.1, "RAT's released heuristic, sigma 0.1"),
        ("method=released", "objective", "confusion", 0.3, "RAT's released heuristic, confusion 0.3"),
    ],
)
def test_other_settings_of_adversarial_training_have_no_row(text, section, key, value, shown):
    # Kills: a row of the paper beside another radius, another weight perturbation or another heuristic.
    config = rat.get_config(text)
    config[section][key] = value
    name, label = trained_by(config.to_dict())
    assert name.endswith("_otherwise") and label == shown


def test_a_network_trained_in_bfloat16_says_so():
    config = spider.get_config()
    config.compute_dtype = "bfloat16"
    assert trained_by(config.to_dict())[1] == "SPIDER (tau 8, xi 0.4), bfloat16"


def test_other_noise_of_the_baseline_has_no_row_either():
    config = discriminative.get_config("method=noisy")
    config.method.std = 0.5
    assert trained_by(config.to_dict()) == ("gaussian_noise_otherwise", "gaussian_noise (std 0.5)")


@pytest.mark.parametrize(
    ("text", "stage", "options", "name", "label"),
    [
        ("augment=pixmix,method=none", "pixmix", {"k": 1, "folder": "mine"}, "pixmix_otherwise", "PixMix, folder mine, k 1"),
        ("augment=augmix,method=none", "augmix", {"severity": 10.0}, "augmix_otherwise", "AugMix, severity 10.0"),
        (
            "augment=deepaugment_in_step,method=none",
            "deepaugment",
            {"group_size": 2, "folder": "mine"},
            "deepaugment_in_step_otherwise",
            "DeepAugment in the step, group_size 2",
        ),
    ],
)
def test_options_of_a_stage_are_named(text, stage, options, name, label):
    # Kills: another PixMix beside the paper's row.
    config = spider.get_config(text)
    for key, value in options.items():
        config.augment_options[stage][key] = value
    assert trained_by(config.to_dict()) == (name, label)
    config = spider.get_config("augment=augmix")
    config.objective.weight = 0.1
    assert trained_by(config.to_dict()) == ("augmix_otherwise+spider", "AugMix, JSD weight 0.1 + SPIDER (tau 8, xi 0.4)")


@pytest.mark.parametrize(
    ("text", "penalty", "name", "label"),
    [
        ("method=none", {"l1": 5e-7}, "none, l1 5e-07", "baseline, l1 5e-07"),
        ("", {"l1": 1e-6, "l2": 0.5}, "spider, l1 1e-06, l2 0.5", "SPIDER (tau 8, xi 0.4), l1 1e-06, l2 0.5"),
    ],
)
def test_penalties_are_named(text, penalty, name, label):
    # Kills: a penalised network beside the paper's plain one, or under its label.
    config = spider.get_config(text)
    config.penalty.update(penalty)
    assert trained_by(config.to_dict()) == (name, label)


def test_a_stored_configuration_is_called_as_the_fresh_one():
    # Kills: lists of a file taken for other settings than the tuples they were.
    for text in ("augment=deepaugment_in_step,method=none", "augment=pixmix", "augment=augmix"):
        config = spider.get_config(text).to_dict()
        assert trained_by(results.canonical(config)) == trained_by(config)
        assert "otherwise" not in trained_by(results.canonical(config))[0]


@pytest.mark.parametrize(("augment", "label"), [("augmix", "AugMix"), ("pixmix", "PixMix")])
def test_imagenet_has_strengths_of_its_own(augment, label):
    # Kills: the papers' settings for ImageNet without their row; CIFAR's strengths beside it.
    config = imagenet.get_config(f"augment={augment},method=none")
    assert trained_by(config.to_dict()) == (augment, label)
    config.augment_options[augment].severity = 3.0
    assert trained_by(config.to_dict()) == (f"{augment}_otherwise", f"{label}, severity 3.0")
