"""A dictionary by the name that the field has for it: `lorascope.SAE`.

`SAE.from_pretrained(address)`, `.save_pretrained(folder)`, `.push_to_hub(repo_id)`.
"""

from lorascope.dictionaries.dictionary import Dictionary

SAE = Dictionary
