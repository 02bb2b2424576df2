import numpy as np

from tilecatcher import Client, Tile, minimal_log

client = Client(http="http://127.0.0.1:5001", capture=("127.0.0.1", 5002))
stack = np.random.default_rng(1).integers(0, 65536, (6, 512, 640), dtype=np.uint16)
client.start_acquisition("42_logfile.ini", minimal_log(cols=6, rows=1))
with client.sender() as sender:  # its end waits until every tile is stored
    for col, image in enumerate(stack):
        sender.send(Tile(acq=42, col=col, row=0, image=image))
print(client.end_acquisition(42)["missing"], "tiles are missing")
image = client.image(client.tile(42, col=3, row=0))
print("read back:", image.shape, image.dtype, np.array_equal(image, stack[3]))
