"""`lorascope.SAE`: a dictionary under the name that the field uses.

`SAE.from_pretrained(address)`, `.save_pretrained(folder)`, `.push_to_hub(repo_id)`.
"""

from lorascope.dictionaries.dictionary import Dictionary

SAE = Dictionary
