"""`python -m kingpole.openapi` prints the document that is committed as protocol/schema/openapi.yaml."""

import yaml

from kingpole.openapi.document import make_document

print("# Made by `python -m kingpole.openapi` of server/kingpole/openapi; not to be edited.")
print(yaml.safe_dump(make_document(), sort_keys=False, allow_unicode=True, width=110), end="")
