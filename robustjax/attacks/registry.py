"""Names of attacks. `core.registry.make(TABLE, name, **options)` binds options."""

from robustjax.attacks.pgd import pgd

TABLE = {"pgd": pgd}
