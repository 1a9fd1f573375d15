"""Every configuration: plain data with known keys, the papers' settings, and a quick form that runs."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from configs import augmentations, recipes
from robustjax import augment
from robustjax.core import registry
from robustjax.io import results
from robustjax.train import adversarial, build, networks, settings

FILES = sorted(
    path for path in (Path(__file__).parents[1] / "configs").rglob("*.py") if path.parent.name != "configs" and path.stem != "__init__"
)
NAMES = [f"{path.parent.name}/{path.stem}" for path in FILES]


def module(name: str):
    return importlib.import_module(f"configs.{name.replace('/', '.')}")


def variants(name: str):
    """Yields every text that may stand behind ':'."""
    yield ""
    yield "quick"
    for method in getattr(module(name), "METHODS", ()):
        yield f"method={method}"
    if name.startswith("rat/"):
        yield from ("order=0", "order=1,model=wrn,awp=on", "method=madry,awp=on,threat=l2", "method=released,model=vgg16")
        yield from ("average=swa,model=mobilenet,quick", "average=ema,model=small,quick")
    elif name.startswith("discriminative/"):
        yield from (f"method={method}" for method in recipes.NOISE_METHODS)
        yield from ("weighting=paper", "method=stability,perturb=spider", "perturb=esp,quick")
        yield from ("augment=augmix_nojsd+pixmix,perturb=spider", "method=noisy,augment=augmix", "method=clean_noisy,augment=cutout,quick")
    if name.split("/")[0] in ("spider", "esp", "baselines"):
        yield from (f"augment={augment}" for augment in augmentations.AUGMENTATIONS)
        yield from ("augment=augmix,quick", "augment=augmix+deepaugment", "augment=deepaugment_in_step+augmix_nojsd")
    if name.startswith(("spider/", "esp/", "baselines/")) and "cifar" in name:
        yield from ("model=resnet18", "model=small,quick", "model=wrn_40_1", "model=densenet", "model=allconv,quick")
    if "tiny_imagenet" in name:
        yield from ("model=small", "model=small,quick")
    elif "imagenet" in name:
        yield from ("data=folder", "model=resnet50,quick", "augment=pixmix,data=folder,quick")


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in NAMES for text in variants(name)])
def test_configurations_are_plain_and_known(name, text):
    # Kills: a key that nothing reads, a callable, a method whose options its kernel does not take, a chain that training refuses.
    config = module(name).get_config(text).to_dict()
    checked = settings.check(config)
    json.dumps(checked)
    method = dict(checked["method"])
    build._check_order([*checked["augment"], method["name"]])
    options = {stage: {k: v for k, v in of.items() if k != "folder"} for stage, of in checked["augment_options"].items()}
    augment.compose([(stage, options.get(stage, {})) for stage in checked["augment"]] + [(method.pop("name"), method)])
    objective = dict(checked["objective"])
    if objective["name"] != "classification":
        registry.make(build.OBJECTIVES, objective.pop("name"), **objective)()


@pytest.mark.parametrize("name", NAMES)
def test_heads_say_command_cost_and_number(name):
    head = module(name).__doc__
    assert f"--config=configs/{name}.py" in head and "Cost: " in head and "Expected: " in head


@pytest.mark.parametrize("name", NAMES)
def test_no_mirrored_digits(name):
    # Kills: 'flip', 'crop_flip' or DeepAugment's flip_signal in any form of a configuration of digits; CIFAR that is not mirrored.
    # The discriminative-loss paper prints that it mirrors SVHN; a folder of images is mirrored by the stage 'flip'.
    for text in variants(name):
        config = module(name).get_config(text)
        assert ("crop_flip" in config.augment) == ("cifar" in name or "tiny_imagenet" in name or name == "discriminative/svhn"), text
        if config.data.name not in networks.DIGITS:
            continue
        assert "flip" not in config.augment, text
        if "deepaugment" in config.augment:
            options = config.augment_options.deepaugment
            assert "flip_signal" not in (options.distortions or networks.distortions(config.data.name)), text


def test_esps_sigma_is_no_setting_until_it_is_given():
    # Kills: a key that gives stored runs of ESP another identity; one that cannot be set; a value that stays in the next configuration.
    usual, given = (module("esp/digits").get_config() for _ in range(2))
    given.method.sigma = 1.5
    without = usual.to_dict()
    del without["method"]["sigma"]
    assert settings.check(usual.to_dict())["method"] == without["method"] and settings.check(given.to_dict())["method"]["sigma"] == 1.5
    assert results.comparable(usual.to_dict()) == results.comparable(without) != results.comparable(given.to_dict())


def test_the_papers_settings():
    # SPIDER, appendix E.1.1; ESP, section 4.2.
    spider = module("spider/cifar10").get_config()
    assert (spider.model.name, spider.model.options.depth, spider.model.options.width) == ("wide_resnet", 40, 2)
    assert (spider.optimizer.lr, spider.optimizer.momentum, spider.schedule.name, spider.epochs) == (0.1, 0.9, "cosine", 400)
    assert spider.data.validation == 0.2
    assert spider.evaluation.attacks.pgd_linf.to_dict() == {"norm": "linf", "eps": 8 / 255, "step_size": 2 / 255, "steps": 7}
    assert spider.evaluation.attacks.pgd_l2.to_dict() == {"norm": "l2", "eps": 0.5, "step_size": 1 / 800, "steps": 20}
    # Appendix E.1.1: selected on validation images under C-bar; for digits and MNIST the papers do not say so.
    selected = {name: module(name).get_config().selection.data for name in NAMES}
    assert selected == {
        name: "cbar" if ("cifar" in name or "imagenet" in name) and name.split("/")[0] in ("spider", "esp", "baselines") else "clean"
        for name in NAMES
    }
    assert module("esp/mnist").get_config().evaluation.benchmark == "mnist_c"
    for name, gamma, classes in (("cifar10", 10, 10), ("cifar100", 50, 100), ("mnist", 10, 10), ("tiny_imagenet", 200, 200)):
        esp = module(f"esp/{name}").get_config()
        assert esp.method.xi == pytest.approx(float(augment.xi_from_ratio(gamma, num_classes=classes)), abs=1e-3)
        assert esp.method.tau == esp.method.epsilon and (esp.optimizer.lr, esp.optimizer.momentum) == (0.1, 0.9)


def test_the_papers_settings_of_large_data():
    # SPIDER, appendix E.1.1; ESP, section 4.2; strengths of AugMix and PixMix in their released code for ImageNet.
    tiny, large, esp = (module(name).get_config() for name in ("spider/tiny_imagenet", "spider/imagenet", "esp/tiny_imagenet"))
    for config, lr, schedule, epochs in ((tiny, 0.01, "cosine", 100), (large, 0.01, "cosine", 90), (esp, 0.1, "step", 200)):
        assert (config.optimizer.lr, config.optimizer.momentum, config.schedule.name, config.epochs) == (lr, 0.9, schedule, epochs)
        assert config.model.name == "resnet18" and config.data.validation == 0.2
    assert (esp.schedule.boundaries, esp.schedule.factor) == ((100, 150), 0.1)
    assert module("esp/tiny_imagenet").get_config("model=small").schedule.boundaries == (5, 7)
    for config, classes in ((tiny, 200), (large, 1000)):
        assert config.method.xi + 1 / classes == pytest.approx(0.5)
    assert (tiny.evaluation.benchmark, large.evaluation.benchmark) == ("tiny_imagenet_c", "imagenet_c")
    assert tiny.evaluation.attacks.pgd_linf.to_dict() == {"norm": "linf", "eps": 3 / 255, "step_size": 1 / 255, "steps": 3}
    assert large.evaluation.attacks.pgd_linf.to_dict() == {"norm": "linf", "eps": 1 / 255, "step_size": 1 / 510, "steps": 2}
    assert large.evaluation.attacks.pgd_l2.to_dict() == {"norm": "l2", "eps": 0.5, "step_size": 1 / 800, "steps": 20}
    assert (large.data.name, large.data.options.to_dict()) == ("imagenet2012", {"size": 224, "crop": "random_resized"})
    assert module("spider/imagenet").get_config("data=folder").data.name == "image_folder"
    augmix, pixmix = (module("spider/imagenet").get_config(f"augment={name}").augment_options for name in ("augmix", "pixmix"))
    assert large.optimizer.nesterov  # PixMix's released imagenet.py
    assert augmix.augmix.severity == 1 and (pixmix.pixmix.beta, pixmix.pixmix.severity) == (4, 1)


def test_the_settings_of_the_discriminative_loss():
    # Section 7.1 and appendix H; the released code's weighting and momentum.
    wanted = {"delta_v": 0.5, "momentum": 0.99, "beta": 1.0, "gamma_reg": 1e-3}
    for name, stddev, delta_d in (("cifar10", 0.06, 5.0), ("svhn", 0.15, 5.0), ("image_folder", 40 / 255, 3.0)):
        config = module(f"discriminative/{name}").get_config()
        objective = config.objective.to_dict()
        assert wanted.items() <= objective.items() and (objective["stddev"], objective["delta_d"]) == (stddev, delta_d)
        assert (objective["alpha"], objective["noisy"]) == (0.5, 0.5)
        assert module(f"discriminative/{name}").get_config("method=noisy").method.to_dict() == {"name": "gaussian_noise", "std": stddev}
        if name != "image_folder":
            assert (config.epochs, config.batch_size, config.schedule.boundaries, config.schedule.factor) == (200, 64, (60, 120, 160), 0.2)
            assert (config.optimizer.lr, config.optimizer.nesterov, config.optimizer.weight_decay) == (1e-3, True, 5e-4)
            assert config.model.to_dict() == {"name": "resnet18", "options": {"embedding": 128}}
    assert (config.optimizer.name, config.optimizer.lr, config.epochs, config.schedule.boundaries) == ("adam", 1e-4, 70, (50,))
    assert set(config.augment_options.color_jitter.to_dict().values()) == {0.3} and config.augment_options.rotation.degrees == 10
    ablation = {
        text: module("discriminative/cifar10").get_config(f"method={text}").objective
        for text in ("clean", "center", "margin", "reg0", "reg1")
    }
    weights = {text: (o.alpha, o.noisy, o.beta, o.gamma_reg) for text, o in ablation.items()}
    assert weights == {
        "center": (1, 0, 0, 1e-3),
        "margin": (0, 0, 1, 1e-3),
        "clean": (1, 0, 1, 1e-3),
        "reg0": (1, 0, 1, 0),
        "reg1": (1, 0, 1, 1),
    }
    printed = module("discriminative/cifar10").get_config("weighting=paper").objective
    assert (printed.alpha, printed.noisy) == (1, 1)


def test_the_settings_of_adversarial_training():
    # RAT, section 5 and Algorithm 1; AWP of Wu et al. 2020.
    for name in ("cifar10", "cifar100", "svhn"):
        rat = module(f"rat/{name}").get_config()
        assert (rat.epochs, rat.batch_size, rat.schedule.boundaries, rat.schedule.factor) == (200, 128, (100, 150), 0.1)
        assert (rat.optimizer.lr, rat.optimizer.momentum, rat.optimizer.weight_decay) == (0.01 if name == "svhn" else 0.1, 0.9, 5e-4)
        assert rat.model.name == "preact_resnet18" and rat.awp.gamma == 0.0 and rat.objective.order == 2 and rat.objective.eta == 0.2
        assert (rat.objective.threat, rat.objective.step_size, rat.objective.steps) == ("linf:8/255", 2 / 255, 10)
        assert rat.selection.attack.to_dict() == rat.evaluation.attacks.pgd20_linf.to_dict()
        assert rat.selection.attack.steps == 20 and rat.selection.attack.eps == 8 / 255
    first, l2 = (module("rat/cifar10").get_config(text) for text in ("order=1,awp=on", "threat=l2,method=madry,awp=on,average=swa"))
    assert (first.objective.eta, first.awp.gamma, first.awp.warmup_epochs) == (0.3, 5e-3, 10)
    assert (l2.objective.threat, l2.objective.step_size, l2.awp.gamma, l2.optimizer.swa_epoch) == ("l2:128/255", 15 / 255, 1e-2, 100)
    defaults = inspect.signature(adversarial.rat).parameters
    assert {name: defaults[name].default for name in ("beta", "sigma", "steps", "reading")} == {
        "beta": 6.0,
        "sigma": 0.01,
        "steps": 10,
        "reading": "kl_logits",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [("qick", "unknown option 'qick'"), ("method=spyder", "unknown method 'spyder'"), ("model=big", "unknown model 'big'")],
)
def test_unknown_options_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        module("spider/cifar10").get_config(text)
