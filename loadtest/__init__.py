"""Load tests of Kingpole beside its peers: same model, same machine, same run."""
