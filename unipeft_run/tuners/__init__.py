"""Methods of the PEFT library (`method=peft/NAME`): its modules, attached to our backbones."""
