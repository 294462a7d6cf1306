"""The API's description against a live server: what it promises holds, whatever is sent."""
