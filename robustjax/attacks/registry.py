"""Names of attacks. `core.registry.make(TABLE, name, **options)` binds options."""

from robustjax.attacks.apgd import apgd
from robustjax.attacks.fab import fab
from robustjax.attacks.pgd import pgd
from robustjax.attacks.square import square

TABLE = {"apgd": apgd, "fab": fab, "pgd": pgd, "square": square}
